// From the JSON of a message that tproxy sends to the values it is made of, and back through tproxy's own writer.

import Addressing
import RouterProtocol

enum Written {
    struct Unreadable: Error {}

    /// The line that tproxy writes for these values; nil for messages of a later version.
    static func line(for message: JSONValue) throws -> [UInt8]? {
        var line: [UInt8] = []
        let params = message["params"] ?? .null
        switch message["method"]?.text {
        case "hello": try hello(message, params).append(to: &line)
        case "proxy":
            let data = try bytes(params["data"])
            try question(message, params).append(
                to: &line, data: data.span, clientHello: params["client_hello"].map { try clientHello($0) },
                tls: params["tls"].map { try tls($0) })
        case "proxy_error": try errorQuestion(message, params).append(to: &line)
        case "cancel":
            try Notice.cancel(id: UInt64(integer(params["id"])), connection: text(params["connection"]))
                .append(to: &line)
        case "shutdown": Notice.shutdown.append(to: &line)
        case "taken": try Notice.taken(id: UInt64(integer(params["id"]))).append(to: &line)
        case "closed":
            try Notice.closed(
                connection: text(params["connection"]), bytesToRemote: UInt64(integer(params["bytes_to_remote"])),
                bytesToClient: UInt64(integer(params["bytes_to_client"])),
                durationMilliseconds: UInt64(integer(params["duration_ms"])), reason: text(params["reason"])
            ).append(to: &line)
        case let method?:
            guard let direction = StreamDirection.allCases.first(where: { $0.method == method }) else { return nil }
            try Notice.rewrite(
                direction, token: text(params["token"]), connection: text(params["connection"]),
                extra: params["extra"].map { Array($0.json.utf8) }
            ).append(to: &line)
        case nil: return nil
        }
        return line
    }

    private static func integer(_ value: JSONValue?) throws -> Int {
        guard let integer = value?.integer else { throw Unreadable() }
        return integer
    }

    private static func text(_ value: JSONValue?) throws -> String {
        guard let text = value?.text else { throw Unreadable() }
        return text
    }

    private static func bytes(_ value: JSONValue?) throws -> [UInt8] {
        guard let bytes = value?.bytes else { throw Unreadable() }
        return bytes
    }

    private static func pair(_ value: JSONValue?) throws -> Endpoint? {
        guard let value, !value.isNull else { return nil }
        guard let pair = value.elements, pair.count == 2, let port = UInt16(exactly: try integer(pair[1])),
            let endpoint = Endpoint(host: try text(pair[0]), port: port)
        else { throw Unreadable() }
        return endpoint
    }

    private static func address(_ value: JSONValue?) throws -> Endpoint {
        guard let endpoint = Endpoint(try text(value)) else { throw Unreadable() }
        return endpoint
    }

    private static func failure(_ value: JSONValue?) throws -> ErrorQuestion.Failure {
        guard let failure = ErrorQuestion.Failure(rawValue: try text(value)) else { throw Unreadable() }
        return failure
    }

    private static func hello(_ message: JSONValue, _ params: JSONValue) throws -> Hello {
        let limits = params["limits"] ?? .null
        return Hello(
            id: UInt64(try integer(message["id"])), version: try text(params["tproxy"]),
            worker: try text(params["worker"]), generation: try integer(params["generation"]),
            listeners: try (params["listeners"]?.elements ?? []).map {
                Hello.Listener(name: try text($0["name"]), address: try pair($0["address"]))
            },
            limits: Hello.Limits(
                lineBytesMax: try integer(limits["line_bytes_max"]),
                initialBytesMax: try integer(limits["initial_bytes_max"]),
                routerTimeoutMilliseconds: try integer(limits["router_timeout_ms"]),
                verdictTimeoutMilliseconds: try integer(limits["verdict_timeout_ms"])),
            streams: params["streams"]?.text)
    }

    private static func question(_ message: JSONValue, _ params: JSONValue) throws -> Question {
        guard let event = Event(rawValue: try text(params["event"])) else { throw Unreadable() }
        return Question(
            id: UInt64(try integer(message["id"])), connection: try text(params["connection"]), event: event,
            client: try pair(params["client"]), local: try pair(params["local"]),
            listener: try text(params["listener"]), replay: try integer(params["replay"]),
            deadlineMilliseconds: try integer(params["deadline_ms"]),
            state: params["state"].map { Array($0.json.utf8) })
    }

    private static func clientHello(_ value: JSONValue) throws -> ClientHelloFacts {
        guard let state = ClientHelloFacts.State(rawValue: try text(value["state"])) else { throw Unreadable() }
        return ClientHelloFacts(
            state: state, serverName: value["sni"]?.text, hasUnusableServerName: value["sni_unusable"]?.isTrue ?? false,
            protocols: try (value["alpn"]?.elements ?? []).map { try bytes($0) })
    }

    private static func tls(_ value: JSONValue) throws -> TLSFacts {
        TLSFacts(
            version: try text(value["version"]), cipher: try text(value["cipher"]), sni: value["sni"]?.text,
            alpn: value["alpn"]?.text,
            clientCertificate: try value["client_certificate"].flatMap { certificate in
                guard !certificate.isNull else { return nil }
                return TLSFacts.Certificate(
                    subject: try text(certificate["subject"]), issuer: try text(certificate["issuer"]),
                    names: try (certificate["names"]?.elements ?? []).map { try text($0) },
                    fingerprint: try text(certificate["fingerprint"]))
            })
    }

    private static func errorQuestion(_ message: JSONValue, _ params: JSONValue) throws -> ErrorQuestion {
        ErrorQuestion(
            id: UInt64(try integer(message["id"])), connection: try text(params["connection"]),
            failure: try failure(params["type"]), message: try text(params["message"]),
            errno: params["errno"]?.integer.map { Int32(truncatingIfNeeded: $0) },
            attempts: try (params["attempts"]?.elements ?? []).map {
                ErrorQuestion.Attempt(
                    remote: try address($0["remote"]), failure: try failure($0["type"]),
                    message: try text($0["message"]))
            },
            client: try pair(params["client"]),
            remote: params["remote"]?.isNull == false ? try address(params["remote"]) : nil,
            listener: try text(params["listener"]), replay: try integer(params["replay"]),
            deadlineMilliseconds: try integer(params["deadline_ms"]))
    }
}
