// What tproxy asks about a connection: one line, written once, into a buffer that the worker sends at the end of a round.

public import Addressing

/// Why a router is asked at this moment.
public enum Event: String, CaseIterable, Sendable {
    /// Bytes have come.
    case data
    /// The client has just connected.
    case connect
    /// The client has been silent for a while.
    case silence
    /// The client has ended its side, still undecided.
    case eof
    /// The time for a verdict is nearly up.
    case timeout
}

/// The `proxy` request.
public struct Question: Sendable {
    public var id: UInt64
    /// The connection's name, unique for the life of the arbiter.
    public var connection: String
    public var event: Event
    /// Nil on a Unix listener.
    public var client: Endpoint?
    /// Nil on a Unix listener.
    public var local: Endpoint?
    public var listener: String
    /// How many routers were asked this question before.
    public var replay: Int
    public var deadlineMilliseconds: Int
    /// The `state` of an earlier verdict: JSON as it came.
    public var state: [UInt8]?

    public init(
        id: UInt64, connection: String, event: Event, client: Endpoint?, local: Endpoint?, listener: String,
        replay: Int, deadlineMilliseconds: Int, state: [UInt8]?
    ) {
        self.id = id
        self.connection = connection
        self.event = event
        self.client = client
        self.local = local
        self.listener = listener
        self.replay = replay
        self.deadlineMilliseconds = deadlineMilliseconds
        self.state = state
    }

    /// Appends the line, newline included. `data` is all the client has sent that no verdict has consumed; `clientHello`
    /// what it comes to when it begins like TLS, with the byte 22; `tls` what was agreed with a client whose TLS ends here, and
    /// then `data` is what was inside.
    public func append(
        to line: inout [UInt8], data: Span<UInt8>, clientHello: ClientHelloFacts? = nil, tls: TLSFacts? = nil
    ) {
        line.append(request: "proxy", id: id, connection: connection)
        line.append(",\"event\":")
        line.append(json: event.rawValue)
        line.append(",\"data\":")
        line.append(json: data)
        line.append(client: client)
        line.append(",\"local\":")
        line.append(json: local)
        line.append(listener: listener, replay: replay, deadlineMilliseconds: deadlineMilliseconds)
        if let clientHello {
            line.append(",\"client_hello\":")
            clientHello.append(to: &line)
        }
        if let tls {
            line.append(",\"tls\":")
            tls.append(to: &line)
        }
        if let state {
            line.append(",\"state\":")
            line.append(contentsOf: state)
        }
        line.append("}}\n")
    }
}

/// The `proxy_error` request: a decision could not be carried out.
public struct ErrorQuestion: Sendable {
    /// What failed. Never the client's, the router's or a verdict's own fault.
    public enum Failure: String, CaseIterable, Sendable {
        /// The remote, or every address of it, refused.
        case connectRefused = "connect_refused"
        case connectTimeout = "connect_timeout"
        /// Connected, and no byte from the remote for too long.
        case inactivityTimeout = "inactivity_timeout"
        /// The name has no address.
        case dns
        case tls
        /// Another error of connect(2).
        case connectFailed = "connect_failed"
        /// The remote is one of our own listeners.
        case loop
        /// The remote reset the connection before any of its bytes went to the client.
        case reset
        /// The file cannot be opened or is no regular file.
        case file
    }

    /// One remote that was tried.
    public struct Attempt: Sendable {
        public var remote: Endpoint
        public var failure: Failure
        public var message: String

        public init(remote: Endpoint, failure: Failure, message: String) {
            self.remote = remote
            self.failure = failure
            self.message = message
        }
    }

    /// The last so many attempts are told, so that a question stays within its line.
    public static let attemptsMax = 16
    /// Longer messages are cut, in bytes of UTF-8.
    public static let messageBytesMax = 256

    public var id: UInt64
    public var connection: String
    public var failure: Failure
    public var message: String
    /// The system's error number, where there is one.
    public var errno: Int32?
    public var attempts: [Attempt]
    public var client: Endpoint?
    /// The last remote tried; nil for a file.
    public var remote: Endpoint?
    public var listener: String
    public var replay: Int
    public var deadlineMilliseconds: Int

    public init(
        id: UInt64, connection: String, failure: Failure, message: String, errno: Int32?, attempts: [Attempt],
        client: Endpoint?, remote: Endpoint?, listener: String, replay: Int, deadlineMilliseconds: Int
    ) {
        self.id = id
        self.connection = connection
        self.failure = failure
        self.message = message
        self.errno = errno
        self.attempts = attempts
        self.client = client
        self.remote = remote
        self.listener = listener
        self.replay = replay
        self.deadlineMilliseconds = deadlineMilliseconds
    }

    /// Appends the line, newline included.
    public func append(to line: inout [UInt8]) {
        line.append(request: "proxy_error", id: id, connection: connection)
        line.append(",\"type\":")
        line.append(json: failure.rawValue)
        line.append(",\"message\":")
        line.append(json: message.cut(Self.messageBytesMax))
        line.append(",\"errno\":")
        if let errno { line.append(json: errno) } else { line.append("null") }
        line.append(",\"attempts\":[")
        for (index, attempt) in attempts.suffix(Self.attemptsMax).enumerated() {
            line.append(index == 0 ? "{\"remote\":" : ",{\"remote\":")
            line.append(json: attempt.remote.description)
            line.append(",\"type\":")
            line.append(json: attempt.failure.rawValue)
            line.append(",\"message\":")
            line.append(json: attempt.message.cut(Self.messageBytesMax))
            line.append("}")
        }
        line.append("]")
        line.append(client: client)
        line.append(",\"remote\":")
        line.append(json: remote?.description)
        line.append(listener: listener, replay: replay, deadlineMilliseconds: deadlineMilliseconds)
        line.append("}}\n")
    }
}

extension [UInt8] {
    /// How every request about a connection begins.
    fileprivate mutating func append(request method: String, id: UInt64, connection: String) {
        append("{\"jsonrpc\":\"2.0\",\"id\":")
        append(json: id)
        append(",\"method\":")
        append(json: method)
        append(",\"params\":{\"connection\":")
        append(json: connection)
    }

    fileprivate mutating func append(client: Endpoint?) {
        append(",\"client\":")
        append(json: client)
    }

    /// How every request about a connection ends.
    fileprivate mutating func append(listener: String, replay: Int, deadlineMilliseconds: Int) {
        append(",\"listener\":")
        append(json: listener)
        append(",\"replay\":")
        append(json: replay)
        append(",\"deadline_ms\":")
        append(json: deadlineMilliseconds)
    }

    /// `["host", port]`, or `null` for what has no port.
    mutating func append(json endpoint: Endpoint?) {
        guard let endpoint, let port = endpoint.port else {
            append("null")
            return
        }
        append("[")
        append(json: endpoint.host)
        append(",")
        append(json: port)
        append("]")
    }
}
