# The catalogue of the edge's settings: each is an environment variable, CARILLON_EDGE_ and the name.
# `render.sh --table` makes the table of docs/edge.md from it.

function catalogue() {
    setting("GATEWAYS", "peers", "", "host:port, comma-separated", "refused", "The gateways' public ports. In a cluster the full name of the headless Service: Nginx's resolver knows no search domains.")
    setting("INTERNAL_GATEWAYS", "peers", "", "host:port, comma-separated", "nobody is asked for goodbyes", "The gateways' internal ports: whom the drain asks, and what `API` passes to.")
    setting("RESOLVE", "flag", "0", "0 or 1", "names are looked up once, at start", "Follow the names of the gateways in DNS while running. Needs Nginx 1.27.3.")
    setting("RESOLVER", "hosts", "", "address or address:port, comma-separated", "those of /etc/resolv.conf", "The DNS servers for `RESOLVE`.")
    setting("RESOLVER_IPV6", "flag", "0", "0 or 1", "only A records are asked for", "Ask for AAAA records too.")
    setting("BALANCE", "cookie|user|address", "cookie", "`cookie`, `user`, `address`", "", "What leads a client back to its pod: a cookie that the edge sets, the key that the client gives, or its address.")
    setting("HOST", "host", "", "address", "all addresses", "Where the ports listen.")
    setting("PORT", "port", "8080", "port", "refused", "HTTP and WebSocket without TLS.")
    setting("TLS_PORT", "port0", "0", "port", "no TLS", "The same with TLS.")
    setting("CERTIFICATES", "path", "/etc/carillon/tls", "folder", "", "Holds `tls.crt` and `tls.key`; read anew when they change, without a reload.")
    setting("PROXY_PROTOCOL", "flag", "0", "0 or 1", "off", "Each connection begins with a PROXY header, and the client's address is taken from it. Needs `TRUSTED`.")
    setting("TRUSTED", "networks", "", "addresses or CIDRs, comma-separated", "nobody is believed", "Load balancers whose PROXY header, or without `PROXY_PROTOCOL` X-Forwarded-For and X-Forwarded-Proto, are believed.")
    setting("ADDRESS_CONNECTIONS", "number", "0", "connections", "no limit", "Of one client address at once; more get 429. Mobile carriers put thousands behind one address.")
    setting("ADDRESS_RATE", "number", "0", "upgrades per second", "no limit", "Of one client address; more get 429.")
    setting("ADDRESS_BURST", "number", "0", "upgrades", "one second's worth", "That `ADDRESS_RATE` lets pass at once.")
    setting("IDLE_TIMEOUT", "seconds", "75", "seconds", "refused", "A connection without a byte from the gateway ends. Above three of its pings (25 s each).")
    setting("API", "flag", "0", "0 or 1", "404", "Pass `/api` to the gateways' internal ports; it stays behind its API keys.")
    setting("STATUS_PORT", "port0", "8081", "port", "off", "`/healthz`, `/readyz`, and `/stub_status` where Nginx has the module. Not for the public.")
    setting("DRAIN_DELAY", "number", "5", "seconds", "no wait", "From the order to go until the goodbyes begin: load balancers have to notice first.")
    setting("DRAIN_TIMEOUT", "seconds", "30", "seconds", "refused", "3600 at most, over which the gateways spread the goodbyes. Who is left then is cut with the container.")
    setting("WORKERS", "number", "2", "processes", "one for each CPU of the machine", "Nginx workers. In a container: as many as it may use CPUs.")
    setting("CONNECTIONS", "count", "32768", "connections of one worker", "refused", "A WebSocket takes two, one to each side. Lowered, with a line that says so, to what descriptors allow.")
    setting("ACCESS_LOG", "log", "/dev/stdout", "file, `syslog:...` or `off`", "", "One JSON object for each request, when it ends; no query strings.")
    setting("RUN", "path", "/tmp/nginx", "folder", "", "The rendered configuration and whatever else is written.")
    setting("INCLUDE", "path", "", "folder", "none", "`http*.conf` and `server*.conf` in it are rendered too and included there: own locations, own headers.")
    setting("ID", "word", "", "word", "made at each start, and not to be guessed", "Who knows it may ask gateways to say goodbye to the sessions that came through this edge.")
    setting("NGINX", "path", "nginx", "command", "", "The binary.")
    setting("NGINX_VERSION", "version", "", "version, e.g. 1.28.0", "what the binary says", "Take it for that version: below 1.29.6 `hash` stands in for `sticky`.")
}

function setting(name, kind, fallback, unit, zero, meaning,    value) {
    names[++count] = name
    kinds[name] = kind
    fallbacks[name] = fallback
    value = ENVIRON["CARILLON_EDGE_" name]
    values[name] = value == "" || made_by_kubernetes("", value) ? fallback : value
    units[name] = unit
    zeros[name] = zero
    meanings[name] = meaning
}

function table(    n, name, shown) {
    print "| CARILLON_EDGE_... | unit | default | 0 or empty | meaning |"
    print "|---|---|---|---|---|"
    for (n = 1; n <= count; n++) {
        name = names[n]
        shown = fallbacks[name] == "" ? "" : "`" fallbacks[name] "`"
        print "| `" name "` | " units[name] " | " shown " | " zeros[name] " | " meanings[name] " |"
    }
}

# Refuses values that are not of their kind. What passes can stand in the configuration between double quotes.
function check_all(    name, n, known) {
    for (n = 1; n <= count; n++) {
        known["CARILLON_EDGE_" names[n]] = 1
        check(names[n], kinds[names[n]], values[names[n]])
        # A number from now on: the text "0" would be true.
        if (kinds[names[n]] ~ /^(flag|number|seconds|count|port0?)$/) values[names[n]] += 0
    }
    for (name in ENVIRON) {
        if (name ~ /^CARILLON_EDGE_/ && name !~ /^CARILLON_EDGE_LOCAL_/ && !(name in known) && !made_by_kubernetes(name, ENVIRON[name])) die("there is no setting " name)
    }
}

# Kubernetes puts such names into every pod of a namespace with a Service called carillon-edge, and PORT=tcp://... too (N8).
function made_by_kubernetes(name, value) {
    return name ~ /_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$/ || name ~ /_PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?$/ || value ~ /^(tcp|udp|sctp):\/\//
}

function check(name, kind, value,    n, parts, total) {
    if (kind == "peers" || kind == "networks" || kind == "hosts") {
        total = split(value, parts, ",")
        for (n = 1; n <= total; n++) check_one(name, kind, trimmed(parts[n]))
    } else if (kind ~ /\|/) {
        if (index("|" kind "|", "|" value "|") == 0) bad(name, value, "one of " kind)
    } else {
        check_one(name, kind, value)
    }
}

function check_one(name, kind, value,    whole, port) {
    whole = value ~ /^[0-9]+$/ && length(value) < 10
    port = value
    sub(/^.*:/, "", port)
    if (kind == "flag" && value !~ /^[01]$/) bad(name, value, "0 or 1")
    if (kind == "number" && !whole) bad(name, value, "a whole number, 0 or more")
    if ((kind == "seconds" || kind == "count") && !(whole && value + 0 > 0)) bad(name, value, "a whole number above 0")
    # The gateways take no longer window.
    if (name == "DRAIN_TIMEOUT" && value + 0 > 3600) bad(name, value, "3600 at most")
    if (kind == "count" && value + 0 < 64) bad(name, value, "at least 64")
    if (kind == "port" && !is_port(value)) bad(name, value, "a port from 1 to 65535")
    if (kind == "port0" && value != "0" && !is_port(value)) bad(name, value, "a port, or 0")
    if (kind == "peers" && !(value ~ /^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]+$/ && is_port(port))) bad(name, value, "host:port, or several with commas")
    if (kind == "networks" && !(value ~ /^[0-9A-Fa-f:.]+(\/[0-9]+)?$/ && value ~ /[.:]/)) bad(name, value, "addresses or CIDRs with commas")
    if (kind == "hosts" && value !~ /^([0-9A-Za-z._-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?|[0-9A-Fa-f:]+)$/) bad(name, value, "addresses with commas")
    if (kind == "host" && value !~ /^([0-9.]+|\[[0-9A-Fa-f:.]+\])?$/) bad(name, value, "an address; IPv6 in square brackets")
    if (kind == "word" && value !~ /^[A-Za-z0-9_-]*$/) bad(name, value, "letters, digits, - and _")
    if (kind == "word" && (length(value) > 64 || (value != "" && length(value) < 16))) bad(name, value, "16 to 64 letters")
    if (kind == "version" && value !~ /^([0-9]+\.[0-9]+\.[0-9]+)?$/) bad(name, value, "a version such as 1.28.0")
    if ((kind == "path" || kind == "log") && value ~ /["$\\[:cntrl:]]/) bad(name, value, "a path without quotes, dollar signs or backslashes")
}

function is_port(value) {
    return value ~ /^[0-9]+$/ && length(value) < 6 && value + 0 >= 1 && value + 0 <= 65535
}

function bad(name, value, wanted) {
    die("CARILLON_EDGE_" name "=" value " must be " wanted)
}

function trimmed(text) {
    gsub(/^[ \t]+|[ \t]+$/, "", text)
    return text
}
