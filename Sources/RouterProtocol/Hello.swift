// The greeting: the first message on a router's socket, and what its answer says about the router.

public import Addressing

/// The `hello` request.
public struct Hello: Sendable {
    /// The protocol spoken here.
    public static let protocolVersion = 1

    /// The bounds a router is told.
    public struct Limits: Equatable, Sendable {
        public var lineBytesMax: Int
        public var initialBytesMax: Int
        public var routerTimeoutMilliseconds: Int
        public var verdictTimeoutMilliseconds: Int

        /// A byte takes up to six characters (`\u0000`); the rest of a question fits into 64 KiB.
        public var questionBytesMax: Int {
            let (escaped, overflow) = initialBytesMax.multipliedReportingOverflow(by: 6)
            return overflow || escaped > .max - 65536 ? .max : escaped + 65536
        }

        public init(
            lineBytesMax: Int, initialBytesMax: Int, routerTimeoutMilliseconds: Int, verdictTimeoutMilliseconds: Int
        ) {
            self.lineBytesMax = lineBytesMax
            self.initialBytesMax = initialBytesMax
            self.routerTimeoutMilliseconds = routerTimeoutMilliseconds
            self.verdictTimeoutMilliseconds = verdictTimeoutMilliseconds
        }
    }

    public struct Listener: Equatable, Sendable {
        public var name: String
        /// Nil for a Unix socket.
        public var address: Endpoint?

        public init(name: String, address: Endpoint?) {
            self.name = name
            self.address = address
        }
    }

    public var id: UInt64
    public var version: String
    public var worker: String
    public var generation: Int
    public var listeners: [Listener]
    public var limits: Limits
    /// Where rewriters connect to, `unix:@NAME` or `unix:/PATH`; nil where nothing can be rewritten.
    public var streams: String?

    public init(
        id: UInt64, version: String, worker: String, generation: Int, listeners: [Listener], limits: Limits,
        streams: String? = nil
    ) {
        self.id = id
        self.version = version
        self.worker = worker
        self.generation = generation
        self.listeners = listeners
        self.limits = limits
        self.streams = streams
    }

    /// Appends the line, newline included.
    public func append(to line: inout [UInt8]) {
        line.append("{\"jsonrpc\":\"2.0\",\"id\":")
        line.append(json: id)
        line.append(",\"method\":\"hello\",\"params\":{\"protocol\":")
        line.append(json: Self.protocolVersion)
        line.append(",\"tproxy\":")
        line.append(json: version)
        line.append(",\"worker\":")
        line.append(json: worker)
        line.append(",\"generation\":")
        line.append(json: generation)
        line.append(",\"listeners\":[")
        for (index, listener) in listeners.enumerated() {
            line.append(index == 0 ? "{\"name\":" : ",{\"name\":")
            line.append(json: listener.name)
            line.append(",\"address\":")
            line.append(json: listener.address)
            line.append("}")
        }
        line.append("],\"limits\":{\"line_bytes_max\":")
        line.append(json: limits.lineBytesMax)
        line.append(",\"question_bytes_max\":")
        line.append(json: limits.questionBytesMax)
        line.append(",\"initial_bytes_max\":")
        line.append(json: limits.initialBytesMax)
        line.append(",\"router_timeout_ms\":")
        line.append(json: limits.routerTimeoutMilliseconds)
        line.append(",\"verdict_timeout_ms\":")
        line.append(json: limits.verdictTimeoutMilliseconds)
        line.append("}")
        if let streams {
            line.append(",\"streams\":")
            line.append(json: streams)
        }
        line.append("}}\n")
    }
}

/// What a router says of itself.
public struct HelloAnswer: Equatable, Sendable {
    /// What it implements, as far as this version knows the names.
    public struct Methods: OptionSet, Hashable, Sendable {
        public let rawValue: UInt16
        public init(rawValue: UInt16) { self.rawValue = rawValue }

        public static let proxy = Methods(rawValue: 1)
        public static let proxyError = Methods(rawValue: 2)
        public static let cancel = Methods(rawValue: 4)
        public static let shutdown = Methods(rawValue: 8)
        public static let taken = Methods(rawValue: 16)
        public static let closed = Methods(rawValue: 32)
        public static let rewriteRequest = Methods(rawValue: 64)
        public static let rewriteResponse = Methods(rawValue: 128)

        /// Other names belong to later versions and mean nothing here.
        init(named name: String) {
            switch name {
            case "proxy": self = .proxy
            case "proxy_error": self = .proxyError
            case "cancel": self = .cancel
            case "shutdown": self = .shutdown
            case "taken": self = .taken
            case "closed": self = .closed
            case "rewrite_request": self = .rewriteRequest
            case "rewrite_response": self = .rewriteResponse
            default: self = []
            }
        }
    }

    /// A router that says nothing of itself: it is asked about data and told nothing.
    public static let bare = HelloAnswer(
        isBare: true, name: nil, methods: .proxy, events: [.data], inFlightMax: inFlightStandard)

    /// Questions open at once when a router does not say.
    public static let inFlightStandard = 64
    public static let inFlightMax = 65536
    static let nameBytesMax = 128

    public var isBare: Bool
    public var name: String?
    public var methods: Methods
    /// Always with `data`.
    public var events: Set<Event>
    public var inFlightMax: Int

    public init(isBare: Bool, name: String?, methods: Methods, events: Set<Event>, inFlightMax: Int) {
        self.isBare = isBare
        self.name = name
        self.methods = methods
        self.events = events
        self.inFlightMax = inFlightMax
    }
}

private enum HelloKey: String, WireKey {
    case `protocol`, name, methods, events
    case inFlightMax = "max_in_flight"

    static let table = makeTable()
}

extension HelloAnswer {
    /// Reads the result of `hello`. One that names no protocol is that of a bare router, whatever else it is; an error
    /// answer means the same, see `bare`. Keys that are not known are left for later versions.
    public static func decode(_ line: Span<UInt8>, _ result: Range<Int>) throws(ProtocolError) -> HelloAnswer {
        guard line.kind(of: result) == .object else { return .bare }
        var answer = HelloAnswer.bare
        var failure: ProtocolError?
        var seen = SeenKeys()
        var members = JSONCursor(result)
        while let (name, value) = try members.nextMember(in: line) {
            guard let (index, key) = HelloKey.find(name, in: line) else { continue }
            do throws(ProtocolError) {
                guard seen.insert(index) else { throw .duplicate(key.rawValue) }
                if line.kind(of: value) != .null { try answer.read(key, from: Field(key.rawValue, value), in: line) }
            } catch {
                // Another version may shape the other keys differently: then that is the reason.
                if failure == nil || error.fault == .newerProtocol { failure = error }
            }
        }
        // A verdict that a simple script gives to every line may look like anything but this.
        if answer.isBare { return .bare }
        if let failure { throw failure }
        return answer
    }

    private mutating func read(_ key: HelloKey, from field: Field, in line: Span<UInt8>) throws(ProtocolError) {
        switch key {
        case .protocol:
            isBare = false
            let version = try field.integer(in: line, from: 1, to: .max)
            guard version == Hello.protocolVersion else {
                throw ProtocolError(
                    .newerProtocol, key: key.rawValue,
                    "the router speaks version \(version), this tproxy speaks \(Hello.protocolVersion)")
            }
        case .name:
            name = try field.text(in: line, bytesMax: Self.nameBytesMax)
        case .methods:
            methods = []
            for name in try field.texts(in: line) { methods.formUnion(Methods(named: name)) }
            guard methods.contains(.proxy) else { throw field.wrongValue("must contain \"proxy\"") }
        case .events:
            for name in try field.texts(in: line) {
                if let event = Event(rawValue: name) { events.insert(event) }
            }
        case .inFlightMax:
            inFlightMax = try field.integer(in: line, from: 1, to: Self.inFlightMax)
        }
    }
}
