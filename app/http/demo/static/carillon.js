// A small client of the plain protocol (docs/protocol.md): reconnects with full jitter, subscribes again from where it
// was, sends again under the same key what was not confirmed, and knows who is in a room. Copy it as a start.

const BACKOFF_FIRST = 250, BACKOFF_MAX = 5000; // milliseconds
const CONNECT_TIMEOUT = 5000;
const RESYNC_SPREAD = 2000; // everybody in the room is told to ask again at the same moment
const staysAway = (code) => (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000);

export class Carillon extends EventTarget {
  #socket = null;
  #attempts = 0;
  #nextId = 1;
  #replies = new Map(); // id -> what to do with the reply
  #pending = new Map(); // idempotency key -> publication without an answer
  #positions = new Map(); // room -> the last position that was seen, where it has a history
  #present = new Map(); // room -> the users in it, where that was asked for
  #watchdog = 0;
  #silence = 0;

  constructor(url, fetchToken) {
    super();
    this.url = url;
    this.fetchToken = fetchToken;
    this.rooms = new Set();
  }

  connect() {
    this.#tell("state", "connecting");
    const socket = (this.#socket = new WebSocket(this.url));
    this.#watch(CONNECT_TIMEOUT);
    socket.onmessage = (event) => this.#receive(JSON.parse(event.data));
    socket.onclose = (event) => this.#closed(socket, event);
  }

  // With `presence`, "present" events say who is in the room: some of them by name, where they are many.
  subscribe(room, { presence = false } = {}) {
    this.rooms.add(room);
    if (presence) this.#present.set(room, new Set());
    this.#subscribe(room);
  }

  // Resolves with the position once the server has confirmed, however many connections that takes.
  publish(room, data) {
    const key = crypto.randomUUID();
    return new Promise((resolve, reject) => {
      this.#pending.set(key, { room, data, resolve, reject });
      this.#publish(key);
    });
  }

  #publish(key) {
    const { room, data, resolve, reject } = this.#pending.get(key);
    this.#command({ type: "publish", room, data, idempotency_key: key }, (reply) => {
      if (reply.type === "error" && reply.temporary) {
        setTimeout(() => this.#pending.has(key) && this.#publish(key), 500);
        return;
      }
      this.#pending.delete(key);
      reply.type === "ok" ? resolve(reply) : reject(reply);
    });
  }

  #subscribe(room) {
    const since = this.#positions.get(room);
    this.#command({ type: "subscribe", room, since }, (reply) => {
      if (reply.type === "ok") this.#subscribed(reply);
      else if (reply.temporary) setTimeout(() => this.rooms.has(room) && this.#subscribe(room), 500);
      else this.#tell("refused", { room, ...reply });
    });
  }

  #subscribed(reply) {
    this.#goOnFrom(reply);
    this.#tell("subscribed", reply);
    if (reply.recovered === false) this.#tell("insufficient", { room: reply.room });
    if (this.#present.has(reply.room)) this.#askWho(reply.room);
  }

  #goOnFrom({ room, epoch, offset }) {
    if (epoch) this.#positions.set(room, { epoch, offset });
    else this.#positions.delete(room);
  }

  #askWho(room) {
    this.#command({ type: "presence", room }, (reply) => {
      if (reply.type === "ok") this.#setPresent(room, reply.members.map(({ user }) => user));
      else if (reply.temporary) this.#askWhoLater(room);
    });
  }

  #askWhoLater(room) {
    const socket = this.#socket;
    setTimeout(() => socket === this.#socket && this.#askWho(room), Math.random() * RESYNC_SPREAD);
  }

  #presenceChanged({ room, joined = [], left = [], resync }) {
    if (!this.#present.has(room)) return;
    if (resync) return this.#askWhoLater(room);
    const gone = new Set(left);
    this.#setPresent(room, [...this.#present.get(room), ...joined].filter((user) => !gone.has(user)));
  }

  #setPresent(room, users) {
    this.#present.set(room, new Set(users));
    this.#tell("present", { room, users: [...this.#present.get(room)] });
  }

  // Commands before the session is open are left out: everything is said again when it opens.
  #command(command, onReply) {
    if (!this.open && command.type !== "auth") return;
    const id = this.#nextId++;
    this.#replies.set(id, onReply);
    this.#socket.send(JSON.stringify({ id, ...command }));
  }

  async #receive(message) {
    this.#watch(this.#silence || CONNECT_TIMEOUT);
    if (message.type === "welcome") {
      this.#silence = message.ping_interval ? (message.ping_interval + 10) * 1000 : 0;
      this.#tell("welcome", message);
      await this.#authenticate();
    } else if (message.type === "ping") {
      this.#socket.send('{"type":"pong"}');
    } else if (this.#replies.has(message.id)) {
      const onReply = this.#replies.get(message.id);
      this.#replies.delete(message.id);
      onReply(message);
    } else {
      const position = this.#positions.get(message.room);
      if (position && message.type === "message" && message.offset) position.offset = message.offset;
      if (message.type === "insufficient") this.#goOnFrom(message);
      if (message.type === "presence") this.#presenceChanged(message);
      this.#tell(message.type, message);
    }
  }

  async #authenticate() {
    const socket = this.#socket;
    let token;
    try {
      token = await this.fetchToken();
    } catch {
      socket.close();
      return;
    }
    if (socket !== this.#socket || socket.readyState !== WebSocket.OPEN) return;
    this.#command({ type: "auth", token }, (reply) => {
      if (reply.type !== "ok") return socket.close();
      if (reply.expires_in !== undefined) {
        setTimeout(() => socket === this.#socket && this.#authenticate(), Math.max(1, reply.expires_in - 30) * 1000);
      }
      if (!this.open) this.#opened();
    });
  }

  #opened() {
    this.open = true;
    this.#attempts = 0;
    this.#tell("state", "connected");
    this.rooms.forEach((room) => this.#subscribe(room));
    this.#pending.forEach((_, key) => this.#publish(key));
  }

  #closed(socket, { code, reason }) {
    if (socket !== this.#socket) return;
    clearTimeout(this.#watchdog);
    this.open = false;
    this.#replies.clear();
    this.#tell("closed", { code, reason });
    if (staysAway(code)) return this.#tell("state", "stopped");
    this.#tell("state", "waiting");
    const longest = Math.min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** this.#attempts++);
    setTimeout(() => this.connect(), Math.random() * longest);
  }

  // Nothing came for too long: the connection is dead, whatever the browser thinks.
  #watch(milliseconds) {
    clearTimeout(this.#watchdog);
    const socket = this.#socket;
    if (milliseconds) {
      this.#watchdog = setTimeout(() => {
        socket.close();
        this.#closed(socket, { code: 1006, reason: "silence" });
      }, milliseconds);
    }
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
