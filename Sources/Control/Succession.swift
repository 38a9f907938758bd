// What a process that is to be an arbiter gets from the one that started it: the successor from the arbiter that was told
// USR2, the daemon from the tproxy that the shell has run. Descriptors, in this order:
//
//     3  the document          4  the channel to whoever started it          5, 6, …  the listeners
//     and, from an arbiter with TLS towards clients, a `TLSParcel` of ticket keys, so that sessions are resumed
//
// Everything else it reads anew: the command line, the environment, the files. So a newer version only has to know this
// page of an older one.

public import Addressing
import Config
public import Linux
public import SystemPackage

/// What an arbiter tells its successor.
public enum Handover: Hashable, Sendable {
    /// I have been told to end: the addresses and the name of the pid file are yours alone now.
    case takeOver
    /// What a router here has said to all workers, also yours: the line as it came.
    case told(String)
}

extension Handover: ControlMessage {
    public var words: (word: String, value: String) {
        switch self {
        case .takeOver: ("takeOver", "")
        case .told(let line): ("told", line)
        }
    }

    public init?(word: Substring, value: Substring) {
        switch word {
        case "takeOver": self = .takeOver
        case "told": self = .told(String(value))
        default: return nil
        }
    }
}

/// The end of whoever has started an arbiter. It hears `ready`, or `bootFailed` and why, and `draining` when its successor
/// has been told to end and has given up the names that both have; and `tellOthers` for as long as both live.
public typealias SuccessorChannel = ControlChannel<Handover, Report>
/// The end of the one that was started.
public typealias OriginChannel = ControlChannel<Report, Handover>

/// The document as values.
public struct Succession: Equatable, Sendable {
    /// A listener that is passed on.
    public struct Listener: Hashable, Sendable {
        /// What it was bound by: the successor takes it for an equal address of its own.
        public var bind: BindAddress
        /// The file of a Unix socket that tproxy has made.
        public var file: FileIdentity?
        /// A service manager opened it: it is listened on whatever the options say.
        public var isActivated: Bool

        public init(bind: BindAddress, file: FileIdentity? = nil, isActivated: Bool = false) {
            (self.bind, self.file, self.isActivated) = (bind, file, isActivated)
        }
    }

    static let channelDescriptor = InheritedDocument.descriptor + 1
    static let firstListener = InheritedDocument.descriptor + 2

    /// USR2; else `-D`.
    public var isUpgrade: Bool
    /// Who started it.
    public var origin: Int32
    /// The soft limit that tproxy was started with.
    public var softDescriptorLimit: UInt64
    /// The last serial that was given to a worker. The next ones are the successor's, so that no two workers, and no two
    /// connections, of a chain of upgrades have the same.
    public var lastSerial: UInt64
    /// Of the successor's first routers.
    public var generation: UInt64
    public var listeners: [Listener]
    /// When there is a parcel of ticket keys: when the next one is to be made.
    public var ticketKeyDue: Instant?

    public init(
        isUpgrade: Bool, origin: Int32, softDescriptorLimit: UInt64, lastSerial: UInt64, generation: UInt64,
        listeners: [Listener], ticketKeyDue: Instant? = nil
    ) {
        self.ticketKeyDue = ticketKeyDue
        self.isUpgrade = isUpgrade
        self.origin = origin
        self.softDescriptorLimit = softDescriptorLimit
        self.lastSerial = lastSerial
        self.generation = generation
        self.listeners = listeners
    }

    /// The bytes of the document.
    public func encoded() -> [UInt8] {
        var records = [
            Record("origin", String(origin)),
            Record("softDescriptorLimit", String(softDescriptorLimit)),
            Record("lastSerial", String(lastSerial)),
            Record("generation", String(generation)),
            Record("channel", String(Self.channelDescriptor)),
        ]
        for listener in listeners {
            // What follows a listener belongs to it.
            records.append(Record("listener", listener.bind.description))
            if let file = listener.file { records.append(Record("listenerFile", file.description)) }
            if listener.isActivated { records.append(Record("listenerIsActivated", "true")) }
        }
        if let ticketKeyDue {
            records.append(Record("ticketKeys", String(ticketKeysDescriptor)))
            records.append(Record("ticketKeyDue", String(ticketKeyDue.nanoseconds)))
        }
        return InheritedDocument(role: isUpgrade ? .successor : .daemon, records: records).encoded()
    }

    /// Behind the listeners.
    var ticketKeysDescriptor: Int32 { Self.firstListener + Int32(clamping: listeners.count) }

    /// Reads a document; whatever comes, it never traps.
    public init(decoding bytes: [UInt8]) throws(InheritanceError) {
        try self.init(try InheritedDocument(decoding: bytes))
    }

    init(_ document: InheritedDocument) throws(InheritanceError) {
        guard document.role != .worker else { throw .invalid(key: "role", value: document.role.rawValue) }
        let channel: Int32 = try document.number("channel")
        guard channel == Self.channelDescriptor else { throw .invalid(key: "channel", value: String(channel)) }
        isUpgrade = document.role == .successor
        origin = try document.number("origin")
        softDescriptorLimit = try document.number("softDescriptorLimit")
        lastSerial = try document.number("lastSerial")
        generation = try document.number("generation")
        listeners = []
        for record in document.records {
            switch record.key {
            case "listener":
                guard let bind = BindAddress(record.value) else {
                    throw .invalid(key: "listener", value: record.value)
                }
                listeners.append(Listener(bind: bind))
            case "listenerFile", "listenerIsActivated":
                guard !listeners.isEmpty else { throw .invalid(key: record.key, value: record.value) }
                let last = listeners.count - 1
                if record.key == "listenerIsActivated" {
                    listeners[last].isActivated = record.value == "true"
                } else {
                    guard let file = FileIdentity(record.value) else {
                        throw .invalid(key: record.key, value: record.value)
                    }
                    listeners[last].file = file
                }
            default: break
            }
        }
        if document.records.contains(where: { $0.key == "ticketKeys" }) {
            let descriptor: Int32 = try document.number("ticketKeys")
            guard descriptor == ticketKeysDescriptor else {
                throw .invalid(key: "ticketKeys", value: String(descriptor))
            }
            ticketKeyDue = Instant(nanoseconds: try document.number("ticketKeyDue"))
        }
    }

    /// Starts what USR2 has asked for and returns its pid. `sockets` are in the order of `listeners`, `ticketKeys` is the parcel
    /// that `ticketKeyDue` stands for; everything stays the caller's.
    public func spawnSuccessor(
        _ invocation: Invocation, channel: borrowing Descriptor, sockets: [Int32], ticketKeys: Int32? = nil
    ) throws(Errno) -> Int32 {
        precondition((ticketKeys == nil) == (ticketKeyDue == nil), "ticket keys come with the time of the next one")
        let document = try InheritedDocument.file(holding: encoded())
        return try Spawn.successor(
            path: invocation.path, arguments: invocation.arguments, environment: Self.environment(),
            descriptors: [document.raw, channel.raw] + sockets + (ticketKeys.map { [$0] } ?? []))
    }

    /// Starts this program again in the background and returns its pid.
    public func spawnDaemon(
        _ invocation: Invocation, channel: borrowing Descriptor, sockets: [Int32], keepsErrors: Bool
    ) throws(Errno) -> Int32 {
        let document = try InheritedDocument.file(holding: encoded())
        return try Spawn.daemon(
            arguments: invocation.arguments, environment: Self.environment(),
            descriptors: [document.raw, channel.raw] + sockets, keepsErrors: keepsErrors)
    }

    /// Ours, for it is to serve in our place: what the service manager wants is meant for it, too. But not the sockets,
    /// which it has already, nor the pid that was to watch out for the watchdog.
    private static func environment() -> [String] {
        let ours = Process.environment().filter { !$0.hasPrefix("LISTEN_") && !$0.hasPrefix("WATCHDOG_PID=") }
        return InheritedDocument.announced(in: ours)
    }
}

/// What such a process has, ready for use. There is one.
public final class SuccessionInheritance {
    public let succession: Succession
    /// To whoever has started this process.
    public let channel: OriginChannel
    /// Close-on-exec; in the order of the succession's listeners, nil once it has been taken.
    private var sockets: [Int32?]
    /// Until somebody takes them.
    private var ticketKeys: [[UInt8]] = []

    init(_ document: InheritedDocument) throws(InheritanceError) {
        let succession = try Succession(document)
        if succession.ticketKeyDue != nil {
            try InheritanceError.system { () throws(Errno) in try Process.hideMemory() }
            ticketKeys = try TLSParcel(Descriptor(owning: succession.ticketKeysDescriptor)).material().ticketKeys
        }
        let last = Succession.firstListener + Int32(succession.listeners.count)
        try InheritedDocument.close(onExec: Succession.channelDescriptor..<last)
        channel = try InheritanceError.system { () throws(Errno) in
            try OriginChannel(Descriptor(owning: Succession.channelDescriptor))
        }
        self.succession = succession
        sockets = (Succession.firstListener..<last).map { $0 }
    }

    /// The ticket keys of the arbiter before, the newest first, and when the next is due; once. Nil when it had none.
    public func takeTicketKeys() -> (keys: [[UInt8]], due: Instant)? {
        defer { ticketKeys = [] }
        guard let due = succession.ticketKeyDue, !ticketKeys.isEmpty else { return nil }
        return (ticketKeys, due)
    }

    /// Takes the first listener that was bound by this address and has not been taken yet; it is the caller's.
    public func take(_ bind: BindAddress) -> (socket: Int32, file: FileIdentity?)? {
        guard
            let index = succession.listeners.indices.first(where: {
                succession.listeners[$0].bind == bind && sockets[$0] != nil
            }), let socket = sockets[index]
        else { return nil }
        sockets[index] = nil
        return (socket, succession.listeners[index].file)
    }

    /// Closes the listeners that nobody has taken and returns what they were.
    public func closeRest() -> [Succession.Listener] {
        var rest: [Succession.Listener] = []
        for index in sockets.indices {
            guard let socket = sockets[index] else { continue }
            _ = Descriptor(owning: socket)
            sockets[index] = nil
            rest.append(succession.listeners[index])
        }
        return rest
    }
}
