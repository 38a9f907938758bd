// What a decoded answer comes to, as JSON with the defaults left out: the form of `means` in the examples.

import Addressing
import RouterProtocol

/// Collects members that say something.
private struct Members {
    var members: [String: JSONValue] = [:]

    mutating func add(_ key: String, _ value: JSONValue?) { members[key] = value }
    mutating func add(_ key: String, bytes: [UInt8]) { members[key] = bytes.isEmpty ? nil : .bytes(bytes) }
    mutating func add(_ key: String, _ flag: Bool) { members[key] = flag ? .boolean(true) : nil }
    mutating func add(_ key: String, json: [UInt8]?) throws { members[key] = try json.map { try JSONValue($0) } }
    mutating func add(_ labels: Labels) {
        members["tags"] = labels.tags.isEmpty ? nil : .array(labels.tags.map { .string($0) })
        members["note"] = labels.note.map { .string($0) }
    }
    mutating func add(_ rule: CacheRule?) {
        guard let rule else { return }
        let parts: [(CacheParts, String)] = [
            (.client, "client"), (.data, "data"), (.host, "host"), (.sni, "sni"),
        ]
        members["cache"] = .object([
            "key": .array(parts.filter { rule.key.contains($0.0) }.map { .string($0.1) }),
            "ms": .number(rule.milliseconds),
        ])
    }
}

extension Verdict {
    func meaning() throws -> JSONValue {
        var members = Members()
        switch self {
        case .undecided(let waitFor):
            members.add("kind", .string("undecided"))
            members.add("wait", waitFor.map { .number($0) })
        case .exchange(let exchange):
            members.add("kind", .string("exchange"))
            members.add("reply", bytes: exchange.reply)
            members.add("consume", exchange.consume == 0 ? nil : .number(exchange.consume))
            members.add("wait", exchange.waitFor.map { .number($0) })
            members.add("asks_at_once", exchange.asksAtOnce)
            try members.add("state", json: exchange.state)
        case .remote(let remote):
            members.add("kind", .string("remote"))
            members.add("remotes", .array(remote.remotes.map { .string($0.description) }))
            members.add("data", remote.data.map { .bytes($0) })
            members.add("reply", bytes: remote.reply)
            members.add("reply_when", remote.replyBefore ? .string("before") : nil)
            members.add("consume", remote.consume == 0 ? nil : .number(remote.consume))
            members.add("connect_timeout_ms", remote.connectTimeoutMilliseconds.map { .number($0) })
            members.add("inactivity_timeout_ms", remote.inactivityTimeoutMilliseconds.map { .number($0) })
            members.add("bind", remote.bind.map { .array([.string($0.host), .number($0.port)]) })
            members.add("tls", remote.tls?.meaning())
            let ignored = remote.ignoredTLSArguments.sorted()
            members.add("ignored", ignored.isEmpty ? nil : .array(ignored.map { .string($0) }))
            members.add("proxy_protocol", remote.proxyProtocol.map { .number($0) })
            try members.add("extra", json: remote.extra)
            members.add("rewrite", remote.rewrite == .both ? nil : remote.rewrite.meaning)
            members.add(remote.labels)
            members.add(remote.cache)
        case .close(let close):
            members.add("kind", .string("close"))
            members.add("bytes", bytes: close.bytes)
            members.add("reset", close.reset)
            members.add(close.labels)
            members.add(close.cache)
        case .file(let file):
            members.add("kind", .string("file"))
            switch file.source {
            case .path(let path): members.add("path", .string(path))
            case .descriptor(let number, let attached):
                members.add("descriptor", .number(number))
                members.add("attached", attached)
            }
            members.add("reply", bytes: file.reply)
            members.add("offset", file.offset == 0 ? nil : .number(file.offset))
            members.add("nbytes", file.nbytes.map { .number($0) })
            members.add(file.labels)
            members.add(file.cache)
        }
        return .object(members.members)
    }
}

extension TLSArguments {
    fileprivate func meaning() -> JSONValue {
        var members = Members()
        members.add("keyfile", keyFile.map { .string($0) })
        members.add("certfile", certificateFile.map { .string($0) })
        members.add("cert_reqs", verifies ? nil : .number(0))
        members.add("ca_certs", authoritiesFile.map { .string($0) })
        members.add("ssl_version", version.map { .number($0) })
        members.add("ciphers", ciphers.map { .string($0) })
        members.add("server_hostname", serverName.map { .string($0) })
        members.add("alpn", alpn.isEmpty ? nil : .array(alpn.map { .bytes($0) }))
        return .object(members.members)
    }
}

extension StreamDirections {
    fileprivate var meaning: JSONValue {
        switch self {
        case .toRemote: .string("request")
        case .toClient: .string("response")
        default: .boolean(!isEmpty)
        }
    }
}

extension LocalAddress {
    fileprivate var host: String {
        switch address {
        case .ipv4(let address): address.description
        case .ipv6(let address): address.description
        }
    }
}

extension ProxyErrorAnswer {
    func meaning() -> JSONValue {
        var members = Members()
        switch self {
        case .none: members.add("kind", .string("none"))
        case .close(let bytes):
            members.add("kind", .string("close"))
            members.add("bytes", bytes: bytes)
        case .remote(let verdict): return (try? Verdict.remote(verdict).meaning()) ?? .object([:])
        }
        return .object(members.members)
    }
}

extension Invalidation {
    func meaning() -> JSONValue {
        switch self {
        case .all: .object(["all": .boolean(true)])
        case .part(.data, let value): .object(["key": .string("data"), "value": .bytes(value)])
        case .part(let part, let value):
            .object(["key": .string(part.rawValue), "value": .string(String(decoding: value, as: UTF8.self))])
        }
    }
}

extension HelloAnswer {
    func meaning() -> JSONValue {
        guard !isBare else { return .object(["bare": .boolean(true)]) }
        let names: [(Methods, String)] = [
            (.cancel, "cancel"), (.closed, "closed"), (.proxy, "proxy"), (.proxyError, "proxy_error"),
            (.rewriteRequest, "rewrite_request"), (.rewriteResponse, "rewrite_response"), (.shutdown, "shutdown"),
            (.taken, "taken"),
        ]
        var members = Members()
        members.add("name", name.map { .string($0) })
        members.add("methods", .array(names.filter { methods.contains($0.0) }.map { .string($0.1) }))
        members.add("events", .array(events.map(\.rawValue).sorted().map { .string($0) }))
        members.add("max_in_flight", .number(inFlightMax))
        return .object(members.members)
    }
}
