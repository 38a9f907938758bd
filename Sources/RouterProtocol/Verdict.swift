// What a router can answer, as values. VerdictDecoding.swift says how they are read; protocol/README.md what they mean.

public import Addressing

/// The answer to a question.
public enum Verdict: Equatable, Sendable {
    /// Not yet: ask again when there are more bytes, or at least so many.
    case undecided(waitFor: Int?)
    /// Not yet, but tell the client something, or drop what has been understood, and ask again.
    case exchange(Exchange)
    /// Connect and relay.
    case remote(RemoteVerdict)
    case close(CloseVerdict)
    case file(FileVerdict)
}

public struct Exchange: Equatable, Sendable {
    /// Bytes for the client.
    public var reply: [UInt8]
    /// How many bytes of the question's data are done with.
    public var consume: Int
    /// What the next question gives back, as it came; nil keeps what there was.
    public var state: [UInt8]?
    /// Ask again when at least so many unconsumed bytes are there; nil asks at once if any are left.
    public var waitFor: Int?

    /// Whether bytes that are there already are asked about at once. A changed state alone is no reason: nothing
    /// was consumed and nothing said, so the same answer would come for ever.
    public var asksAtOnce: Bool { waitFor == nil && (consume > 0 || !reply.isEmpty) }

    public init(reply: [UInt8] = [], consume: Int = 0, state: [UInt8]? = nil, waitFor: Int? = nil) {
        self.reply = reply
        self.consume = consume
        self.state = state
        self.waitFor = waitFor
    }
}

/// What the log and the command to close by tag know a connection by.
public struct Labels: Equatable, Sendable {
    public var tags: [String]
    public var note: String?

    public init(tags: [String] = [], note: String? = nil) {
        self.tags = tags
        self.note = note
    }
}

public struct RemoteVerdict: Equatable, Sendable {
    /// Tried in order until one connects; never empty.
    public var remotes: [Endpoint]
    /// Sent to the remote instead of the question's bytes; nil sends those.
    public var data: [UInt8]?
    /// Sent to the client ahead of what the remote says.
    public var reply: [UInt8] = []
    /// Whether `reply` is sent before connecting instead of after.
    public var replyBefore = false
    /// How many bytes of the question's data are not sent to the remote.
    public var consume = 0
    /// For one remote: its name, all its addresses, TLS.
    public var connectTimeoutMilliseconds: Int?
    /// How long the remote may be silent.
    public var inactivityTimeoutMilliseconds: Int?
    public var bind: LocalAddress?
    /// How to speak TLS to the remote; nil for plain bytes.
    public var tls: TLSArguments?
    /// Names in `ssl_args` that mean something to Python's `ssl.wrap_socket` and nothing here: for one line of the log.
    public var ignoredTLSArguments: [String] = []
    /// The version, 1 or 2, of the PROXY header that goes to the remote before all else, the TLS handshake too.
    public var proxyProtocol: Int?
    /// Any JSON for the rewriters, as it came.
    public var extra: [UInt8]?
    /// Which directions may be rewritten, of those the router implements.
    public var rewrite = StreamDirections.both
    public var labels = Labels()
    public var cache: CacheRule?

    public init(remotes: [Endpoint]) { self.remotes = remotes }
}

/// The address to connect from.
public struct LocalAddress: Equatable, Sendable {
    public enum Address: Equatable, Sendable {
        case ipv4(IPv4Address)
        case ipv6(IPv6Address)
    }

    public var address: Address
    /// 0 lets the kernel choose.
    public var port: UInt16

    public init(_ address: Address, port: UInt16) {
        self.address = address
        self.port = port
    }

    /// Nil when the endpoint is no IP address. `port` replaces the endpoint's.
    init?(_ endpoint: Endpoint, port: UInt16? = nil) {
        switch endpoint {
        case .ipv4(let address, let own): (self.address, self.port) = (.ipv4(address), port ?? own)
        case .ipv6(let address, let own): (self.address, self.port) = (.ipv6(address), port ?? own)
        case .name, .unix: return nil
        }
    }
}

public struct CloseVerdict: Equatable, Sendable {
    /// Sent first; may be empty.
    public var bytes: [UInt8]
    /// Close by RST; never with bytes.
    public var reset: Bool
    public var labels = Labels()
    public var cache: CacheRule?

    public init(bytes: [UInt8] = [], reset: Bool = false) {
        self.bytes = bytes
        self.reset = reset
    }
}

public struct FileVerdict: Equatable, Sendable {
    public enum Source: Equatable, Sendable {
        /// Never empty, without NUL.
        case path(String)
        /// A number in the router's process. `attached`: the descriptor itself comes with the line by SCM_RIGHTS.
        case descriptor(Int32, attached: Bool)
    }

    public var source: Source
    /// Sent ahead of the file.
    public var reply: [UInt8] = []
    public var offset: UInt64 = 0
    /// Nil sends all to the end.
    public var nbytes: UInt64?
    public var labels = Labels()
    /// Only for a path.
    public var cache: CacheRule?

    public init(source: Source) { self.source = source }
}

/// What an answer has to do with descriptors, whatever becomes of it. Passed descriptors are told apart only by their order, so
/// an answer that is refused or comes too late uses up its own like any other; otherwise the next file would be the wrong one.
public enum DescriptorClaim: Equatable, Sendable {
    case none
    /// It names one of the router's own, which waits for `taken`.
    case named
    /// One came with it.
    case attached
}

/// What a router wants done when a remote has failed.
public enum ProxyErrorAnswer: Equatable, Sendable {
    /// Close.
    case none
    /// Send these bytes if the client has had none, then close.
    case close([UInt8])
    /// Try these instead, if no byte has reached a remote yet. Its `data` replaces what the last one was to get.
    case remote(RemoteVerdict)
}

/// What a verdict is checked against.
public struct VerdictLimits: Equatable, Sendable {
    /// How many bytes the question carried.
    public var dataBytes: Int
    /// How many bytes can be gathered at most.
    public var initialBytesMax: Int

    public init(dataBytes: Int, initialBytesMax: Int) {
        self.dataBytes = dataBytes
        self.initialBytesMax = initialBytesMax
    }

    /// `state` comes back in a question, whose line is bounded.
    public static let stateBytesMax = 32768
    public static let extraBytesMax = 32768
    public static let remotesMax = 64
    public static let tagsMax = 16
    public static let tagBytesMax = 128
    public static let noteBytesMax = 1024
    /// Linux's PATH_MAX without its NUL.
    public static let pathBytesMax = 4095
}
