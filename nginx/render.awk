# Fills the templates of Nginx's configuration from the environment; called by render.sh.
# A template's `${CARILLON_EDGE_NAME}` is a setting or one of `made`; between `@if FLAG` and `@end` stands what the
# flag, one of `flags`, is for (`@if not FLAG`: the reverse). Everything else with a dollar sign is Nginx's own.

BEGIN {
    catalogue()
    if (action == "--table") {
        table()
        exit 0
    }
    check_all()
    if (action == "--get") {
        print values[wanted]
        exit 0
    }
    check_together()
    make_all()
    fill(templates "/nginx.conf.template", values["RUN"] "/nginx.conf")
    total = split(ENVIRON["CARILLON_EDGE_LOCAL_INCLUDES"], files, "\n")
    for (n = 1; n <= total; n++) if (files[n] != "") fill(files[n], values["RUN"] "/include/" base_name(files[n]))
    printf "%s\n", made["ID"] > (values["RUN"] "/edge-id")
    exit 0
}

# What cannot be seen at one value alone.
function check_together() {
    if (values["GATEWAYS"] == "") die("CARILLON_EDGE_GATEWAYS must name the gateways: host:port, or several with commas")
    if (values["API"] && values["INTERNAL_GATEWAYS"] == "") die("CARILLON_EDGE_API=1 needs CARILLON_EDGE_INTERNAL_GATEWAYS")
    if (values["PROXY_PROTOCOL"] && values["TRUSTED"] == "") die("CARILLON_EDGE_PROXY_PROTOCOL=1 needs CARILLON_EDGE_TRUSTED: who sends the PROXY headers")
    check_ports_differ("PORT", "TLS_PORT")
    check_ports_differ("PORT", "STATUS_PORT")
    check_ports_differ("TLS_PORT", "STATUS_PORT")
    if (values["TLS_PORT"]) {
        check_readable(values["CERTIFICATES"] "/tls.crt")
        check_readable(values["CERTIFICATES"] "/tls.key")
    }
    version = number_of(values["NGINX_VERSION"] != "" ? values["NGINX_VERSION"] : found_version)
    if (!version) die("CARILLON_EDGE_NGINX=" values["NGINX"] " does not run, or is no Nginx")
    if (values["RESOLVE"] && version < number_of("1.27.3")) die("CARILLON_EDGE_RESOLVE=1 needs Nginx 1.27.3 or newer")
}

function check_ports_differ(one, other) {
    if (values[one] != 0 && values[one] == values[other]) die("CARILLON_EDGE_" one " and CARILLON_EDGE_" other " are the same port " values[one])
}

function check_readable(file,    line) {
    if ((getline line < file) <= 0) die("CARILLON_EDGE_TLS_PORT is set, and " file " cannot be read or is empty")
    close(file)
}

# "1.29.6" -> 1029006; 0 where it is none.
function number_of(version,    parts) {
    return split(version, parts, ".") == 3 ? parts[1] * 1000000 + parts[2] * 1000 + parts[3] : 0
}

function make_all(    nofile) {
    made["ID"] = values["ID"] != "" ? values["ID"] : new_id
    made["USER"] = user
    made["WORKERS"] = values["WORKERS"] == 0 ? "auto" : values["WORKERS"]
    nofile = values["CONNECTIONS"] + 256
    if (hard_limit ~ /^[0-9]+$/ && hard_limit + 0 < nofile) {
        nofile = hard_limit + 0
        if (nofile < 320) die("a process may have only " nofile " descriptors here (ulimit -Hn)")
        say("a process may have only " nofile " descriptors here (ulimit -Hn): " nofile - 256 " connections of a worker, not " values["CONNECTIONS"])
    }
    made["NOFILE"] = nofile
    made["CONNECTIONS"] = nofile - 256
    made["ACCESS_LOG"] = values["ACCESS_LOG"] == "off" ? "off" : "\"" values["ACCESS_LOG"] "\" edge"
    made["PEERS"] = peers(values["GATEWAYS"])
    made["INTERNAL_PEERS"] = peers(values["INTERNAL_GATEWAYS"])
    made["RESOLVER"] = values["RESOLVE"] ? resolver() : ""
    made["SET_TRUSTED"] = each(values["TRUSTED"], "set_real_ip_from ", ";")
    made["GEO_TRUSTED"] = each(values["TRUSTED"], "", " 1;")
    made["REAL_IP_HEADER"] = values["PROXY_PROTOCOL"] ? "proxy_protocol" : "X-Forwarded-For"
    made["LISTEN"] = listen(values["PORT"], " backlog=4096 sndbuf=64k" proxied())
    made["TLS_LISTEN"] = listen(values["TLS_PORT"], " ssl default_server backlog=4096 sndbuf=64k" proxied())
    made["TLS_LISTEN_AGAIN"] = "listen " (values["HOST"] != "" ? values["HOST"] ":" : "") values["TLS_PORT"] " ssl" proxied() ";"
    made["STATUS_LISTEN"] = listen(values["STATUS_PORT"], "")
    made["ADDRESS_BURST"] = values["ADDRESS_BURST"] ? values["ADDRESS_BURST"] : values["ADDRESS_RATE"]
    flags["cookie"] = values["BALANCE"] == "cookie"
    flags["sticky"] = flags["cookie"] && version >= number_of("1.29.6")
    flags["marked"] = flags["cookie"] && !flags["sticky"]
    flags["user"] = values["BALANCE"] == "user"
    flags["address"] = values["BALANCE"] == "address"
    flags["trusted"] = values["TRUSTED"] != ""
    flags["proxy_protocol"] = values["PROXY_PROTOCOL"]
    flags["tls"] = values["TLS_PORT"] != 0
    flags["certificate_cache"] = version >= number_of("1.27.4")
    flags["shared_tickets"] = version >= number_of("1.23.2")
    flags["connections"] = values["ADDRESS_CONNECTIONS"] != 0
    flags["rate"] = values["ADDRESS_RATE"] != 0
    flags["internal"] = values["INTERNAL_GATEWAYS"] != "" && (values["API"] || values["INCLUDE"] != "")
    flags["api"] = values["API"]
    flags["status"] = values["STATUS_PORT"] != 0
    flags["stub_status"] = has_stub_status
    flags["include"] = values["INCLUDE"] != ""
}

function proxied() {
    return values["PROXY_PROTOCOL"] ? " proxy_protocol" : ""
}

function listen(port, options,    host, line) {
    if (port == 0) return ""
    if (values["HOST"] != "") return "listen " values["HOST"] ":" port options ";"
    line = "listen " port options ";"
    # Where the kernel has IPv6.
    if ((getline host < "/proc/net/if_inet6") >= 0) line = line " listen [::]:" port options " ipv6only=on;"
    close("/proc/net/if_inet6")
    return line
}

# No peer is ever taken out for its failures (N4).
function peers(list,    n, total, parts, peer, text) {
    total = split(list, parts, ",")
    for (n = 1; n <= total; n++) {
        peer = trimmed(parts[n])
        text = text (n > 1 ? " " : "") "server " peer " max_fails=0" (values["RESOLVE"] && peer ~ /[A-Za-z]/ && peer !~ /^\[/ ? " resolve" : "") ";"
    }
    return text
}

# `valid`: whatever the DNS says about its own age (Docker's: 10 minutes), a new pod is known within seconds.
function resolver(    n, total, parts, list, line, words) {
    total = split(values["RESOLVER"], parts, ",")
    for (n = 1; n <= total; n++) list = list " " bracketed(trimmed(parts[n]))
    if (list == "") {
        while ((getline line < "/etc/resolv.conf") > 0) {
            split(line, words, /[ \t\r]+/)
            if (words[1] == "nameserver" && words[2] !~ /%/) list = list " " bracketed(words[2])
        }
        close("/etc/resolv.conf")
    }
    if (list == "") die("CARILLON_EDGE_RESOLVE=1, and /etc/resolv.conf names no DNS server: set CARILLON_EDGE_RESOLVER")
    return "resolver" list " valid=5s ipv6=" (values["RESOLVER_IPV6"] ? "on" : "off") "; resolver_timeout 5s;"
}

function bracketed(host) {
    return host ~ /:.*:/ && host !~ /^\[/ ? "[" host "]" : host
}

function each(list, before, after,    n, total, parts, text) {
    total = split(list, parts, ",")
    for (n = 1; n <= total; n++) text = text (n > 1 ? " " : "") before trimmed(parts[n]) after
    return text
}

function fill(template, target,    line, depth, off, status) {
    printf "" > target
    while ((status = (getline line < template)) > 0) {
        if (line ~ /^[ \t]*@if /) {
            depth++
            if (!off && !holds(line)) off = depth
        } else if (line ~ /^[ \t]*@end$/) {
            if (off == depth) off = 0
            depth--
        } else if (!off) {
            print filled(line, template) > target
        }
    }
    if (status < 0) die("cannot read " template)
    if (depth) die(template ": an @if without its @end")
    close(template)
    close(target)
}

function holds(line,    words, total, name) {
    sub(/^[ \t]+/, "", line)
    total = split(line, words, /[ \t]+/)
    name = words[total]
    if (!(name in flags)) die("no flag " name " for " line)
    return words[2] == "not" ? !flags[name] : flags[name]
}

function filled(line, template,    at, rest, stop, name, done) {
    while ((at = index(line, "${CARILLON_EDGE_")) > 0) {
        rest = substr(line, at + 16)
        stop = index(rest, "}")
        name = substr(rest, 1, stop - 1)
        if (!(name in made) && !(name in values) && !(("CARILLON_EDGE_" name) in ENVIRON)) die(template " asks for " name ", which is not set")
        done = done substr(line, 1, at - 1) (name in made ? made[name] : name in values ? values[name] : ENVIRON["CARILLON_EDGE_" name])
        line = substr(rest, stop + 1)
    }
    return done line
}

function base_name(path) {
    sub(/^.*\//, "", path)
    return path
}

function say(text) {
    printf "edge: %s\n", text > "/dev/stderr"
}

function die(text) {
    say(text)
    exit 1
}
