import { Carillon } from "./carillon.js";

const $ = (id) => document.getElementById(id);
const prefix = "demo:";
const user = sessionStorage.user ??= ["Ada", "Alan", "Barbara", "Edsger", "Grace", "Hedy", "Ken", "Radia"][
  Math.floor(Math.random() * 8)] + "-" + Math.floor(Math.random() * 100);

const logs = new Map(); // room -> { items, unread, epoch, offset, users }
let current = prefix + "lobby";
let node = "";
let connects = 0;

const post = async (path, body) => {
  const response = await fetch(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.status === 202 ? null : response.json();
};

const url = new URL("/ws", location.href);
url.protocol = url.protocol.replace("http", "ws");
const carillon = new Carillon(url, async () => (await post("/demo/token", { user })).token);

carillon.addEventListener("state", ({ detail }) => {
  $("state").textContent = $("state").dataset.state = detail;
  $("kill").disabled = detail !== "connected";
});
carillon.addEventListener("welcome", ({ detail }) => {
  node = detail.node;
  const [, pod, worker] = node.match(/^(.*)-(\d+)-\w+$/);
  $("pod").textContent = pod;
  $("worker").textContent = worker;
  $("session").textContent = detail.session;
  $("connects").textContent = ++connects;
  note(`served by ${node}`);
});
carillon.addEventListener("closed", ({ detail }) => note(`closed: ${detail.code} ${detail.reason}`));
carillon.addEventListener("goodbye", ({ detail }) => note(`goodbye: ${detail.code} ${detail.reason}`));
carillon.addEventListener("refused", ({ detail }) => note(`${detail.room}: ${detail.reason}`));
carillon.addEventListener("insufficient", ({ detail }) =>
  add(detail.room, { notice: "messages may have been missed here" }));
carillon.addEventListener("subscribed", ({ detail }) => moveTo(detail.room, detail.epoch, detail.offset));
carillon.addEventListener("message", ({ detail }) => {
  moveTo(detail.room, undefined, detail.offset);
  if (detail.data !== undefined) add(detail.room, { text: detail.data.text, by: detail.from?.user, offset: detail.offset });
});

carillon.addEventListener("present", ({ detail }) => {
  room(detail.room).users = detail.users;
  showUsers();
});

function room(name) {
  if (!logs.has(name)) logs.set(name, { items: [], unread: 0, epoch: "", offset: 0, users: [] });
  return logs.get(name);
}

function moveTo(name, epoch, offset) {
  const log = room(name);
  log.epoch = epoch ?? log.epoch;
  log.offset = offset ?? log.offset;
  showPosition();
}

function add(name, item) {
  const log = room(name);
  log.items.push(item);
  if (log.items.length > 200) log.items.shift();
  if (name !== current) log.unread++;
  show();
}

function note(text) {
  const item = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date().toTimeString().slice(0, 8);
  item.append(time, text);
  $("events").prepend(item);
  while ($("events").children.length > 50) $("events").lastChild.remove();
}

function showPosition() {
  const { epoch, offset } = room(current);
  $("position").textContent = epoch ? `${offset} in ${epoch}` : "–";
}

function showUsers() {
  $("users").textContent = room(current).users.sort().join(", ") || "–";
}

function show() {
  $("rooms").replaceChildren(...[...logs].map(([name, log]) => {
    const button = document.createElement("button");
    button.textContent = name.slice(prefix.length);
    button.setAttribute("aria-current", name === current);
    button.onclick = () => enter(name);
    if (log.unread) {
      const unread = document.createElement("span");
      unread.className = "unread";
      unread.textContent = log.unread;
      button.append(unread);
    }
    const item = document.createElement("li");
    item.append(button);
    return item;
  }));
  $("messages").replaceChildren(...room(current).items.map((item) => {
    const line = document.createElement("li");
    if (item.notice) {
      line.className = "notice";
      line.textContent = item.notice;
      return line;
    }
    const own = item.by === undefined || item.by === user;
    line.className = [own && "own", item.pending && "pending", item.failed && "failed"].filter(Boolean).join(" ");
    const by = document.createElement("span");
    by.className = "by";
    by.textContent = [own ? "you" : item.by, item.failed ?? (item.pending ? "pending" : `#${item.offset}`)].join("  ");
    const text = document.createElement("div");
    text.textContent = item.text;
    line.append(by, text);
    return line;
  }));
  $("messages").scrollTop = $("messages").scrollHeight;
}

function enter(name) {
  current = name;
  room(name).unread = 0;
  carillon.rooms.has(name) || carillon.subscribe(name, { presence: true });
  show();
  showPosition();
  showUsers();
}

$("join").onsubmit = (event) => {
  event.preventDefault();
  if ($("room").value) enter(prefix + $("room").value);
  $("room").value = "";
};

$("send").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  const item = { text, pending: true };
  const name = current;
  add(name, item);
  carillon.publish(name, { text })
    .then(({ epoch, offset }) => { item.offset = offset; moveTo(name, epoch, offset); })
    .catch((error) => { item.failed = error.reason; })
    .finally(() => { item.pending = false; show(); });
};

$("kill").onclick = async () => {
  note(`killing ${node}`);
  await post("/demo/kill", { node }).catch((error) => note(error.message));
};

$("user").textContent = user;
carillon.connect();
enter(current);
