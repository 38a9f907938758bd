// What a worker inherits from the arbiter: one document, named here for the spawner and for the spawned.
// `Succession.swift` has that of a process which is to be an arbiter, `InheritedDocument.swift` what both have in common.
//
// It travels as a memfd on descriptor 3, and TPROXY_INHERITANCE=3 in the environment says so. Not in the environment
// itself, which anybody may read in /proc and whose entries are limited to 128 KiB; not in the arguments, which are the
// title. Descriptors behind it, in this order:
//
//     3  the document          4  the control channel        5  the scoreboard        6, 7, …  the listeners
//     and, when there is TLS towards clients, a `TLSParcel`, which is read and closed before anything else

public import Addressing
public import Config
public import Linux
public import SystemPackage

/// A listener as a child inherits it.
public struct InheritedListener: Hashable, Sendable {
    /// Close-on-exec and non-blocking. The child closes its copy when it drains.
    public let descriptor: Int32
    /// What it was bound by; its description is the listener's name.
    public let bind: BindAddress
    /// Whether clients speak TLS to it, because `tls://` said so or because all listeners do.
    public let isTLS: Bool

    public init(descriptor: Int32, bind: BindAddress, isTLS: Bool = false) {
        self.descriptor = descriptor
        self.bind = bind
        self.isTLS = isTLS
    }

    /// What routers and logs call it: the `-b` text, normalised, with `tls://` if clients speak TLS to it.
    public var name: String { Self.name(bind, isTLS: isTLS) }

    /// The name of a listener that is bound to this.
    public static func name(_ bind: BindAddress, isTLS: Bool) -> String {
        (isTLS ? BindAddress.tlsPrefix : "") + bind.description
    }
}

/// Why what was inherited cannot be used.
public enum InheritanceError: Error, Hashable, Sendable, CustomStringConvertible {
    case system(Errno)
    case notADocument
    case otherVersion(String)
    case missing(String)
    case invalid(key: String, value: String)
    case scoreboard(String)

    public var description: String {
        switch self {
        case .system(let error): "what was inherited cannot be read: \(error)"
        case .notADocument: "what was inherited is no document of tproxy"
        case .otherVersion(let version): "what was inherited has version \(version), not \(InheritedDocument.version)"
        case .missing(let key): "what was inherited lacks \(key)"
        case .invalid(let key, let value): "what was inherited has a wrong \(key): \(value)"
        case .scoreboard(let reason): reason
        }
    }
}

extension InheritanceError {
    static func system<Result: ~Copyable>(_ body: () throws(Errno) -> Result) throws(InheritanceError) -> Result {
        do throws(Errno) {
            return try body()
        } catch {
            throw .system(error)
        }
    }
}

/// A worker's document as values.
public struct Inheritance: Equatable, Sendable {
    static let controlDescriptor = InheritedDocument.descriptor + 1
    static let scoreboardDescriptor = InheritedDocument.descriptor + 2
    static let firstListener = InheritedDocument.descriptor + 3

    /// Unique among all workers of all arbiters of one upgrade chain; never used again.
    public var serial: UInt64
    /// Its place on the scoreboard.
    public var slot: Int
    /// That of its router; told to it in `hello`.
    public var generation: UInt64
    public var arbiter: Int32
    /// The soft limit that tproxy was started with; routers get it back.
    public var softDescriptorLimit: UInt64
    /// What the listeners were bound by, in the order of their descriptors.
    public var binds: [BindAddress]
    /// Whether there is a `TLSParcel` behind them.
    public var hasTLS = false
    /// Whether tproxy has served before: what a start would fail for is no reason then to go without this worker.
    public var isLater = false
    public var settings: Settings
    /// Whom it is to become, nil to stay what it is.
    public var identity: UserIdentity?

    public init(
        serial: UInt64, slot: Int, generation: UInt64, arbiter: Int32, softDescriptorLimit: UInt64,
        binds: [BindAddress], settings: Settings, identity: UserIdentity? = nil
    ) {
        self.identity = identity
        self.serial = serial
        self.slot = slot
        self.generation = generation
        self.arbiter = arbiter
        self.softDescriptorLimit = softDescriptorLimit
        self.binds = binds
        self.settings = settings
    }

    /// Starts a worker that inherits this document and these descriptors, and returns its pid.
    /// `listeners` are in the order of `binds`, `tls` is a parcel's; everything stays the caller's.
    public func spawnWorker(
        title: String, control: borrowing Descriptor, scoreboard: borrowing Descriptor, listeners: [Int32],
        tls: Int32? = nil
    ) throws(Errno) -> Int32 {
        var inheritance = self
        inheritance.hasTLS = tls != nil
        let document = try InheritedDocument.file(holding: inheritance.encoded())
        return try Spawn.worker(
            arguments: [Self.padded(title)],
            environment: InheritedDocument.announced(in: Spawn.workerEnvironment(Process.environment())),
            descriptors: [document.raw, control.raw, scoreboard.raw] + listeners + (tls.map { [$0] } ?? []))
    }

    /// A title with room for a longer one: a process can only write over what it was started with.
    private static func padded(_ title: String) -> String {
        title + String(repeating: " ", count: max(0, Limits.nameBytesMax + 64 - title.utf8.count))
    }

    /// The bytes of the document.
    public func encoded() -> [UInt8] {
        var records = [
            Record("serial", String(serial)),
            Record("slot", String(slot)),
            Record("generation", String(generation)),
            Record("arbiter", String(arbiter)),
            Record("softDescriptorLimit", String(softDescriptorLimit)),
            Record("control", String(Self.controlDescriptor)),
            Record("scoreboard", String(Self.scoreboardDescriptor)),
        ]
        if let identity {
            records.append(Record("user", String(identity.user)))
            records.append(Record("group", String(identity.group)))
            records += identity.groups.map { Record("groups", String($0)) }
        }
        records += binds.map { Record("listener", $0.description) }
        if hasTLS { records.append(Record("tls", String(tlsDescriptor))) }
        if isLater { records.append(Record("isLater", "1")) }
        records += settings.records.map { Record("settings." + $0.key, $0.value) }
        return InheritedDocument(role: .worker, records: records).encoded()
    }

    /// Behind the listeners.
    var tlsDescriptor: Int32 { Self.firstListener + Int32(clamping: binds.count) }

    /// Reads a document; whatever comes, it never traps.
    public init(decoding bytes: [UInt8]) throws(InheritanceError) {
        try self.init(try InheritedDocument(decoding: bytes))
    }

    init(_ document: InheritedDocument) throws(InheritanceError) {
        guard document.role == .worker else { throw .invalid(key: "role", value: document.role.rawValue) }
        for (key, place) in [("control", Self.controlDescriptor), ("scoreboard", Self.scoreboardDescriptor)] {
            let descriptor: Int32 = try document.number(key)
            guard descriptor == place else { throw .invalid(key: key, value: String(descriptor)) }
        }
        serial = try document.number("serial")
        slot = try document.number("slot")
        generation = try document.number("generation")
        arbiter = try document.number("arbiter")
        softDescriptorLimit = try document.number("softDescriptorLimit")
        if document.records.contains(where: { $0.key == "user" }) {
            var groups: [UInt32] = []
            for record in document.records where record.key == "groups" {
                guard let group = UInt32(record.value) else { throw .invalid(key: "groups", value: record.value) }
                groups.append(group)
            }
            identity = UserIdentity(
                user: try document.number("user"), group: try document.number("group"), groups: groups)
        }
        binds = []
        for record in document.records where record.key == "listener" {
            guard let bind = BindAddress(record.value) else { throw .invalid(key: "listener", value: record.value) }
            binds.append(bind)
        }
        let prefix = "settings."
        settings = try Settings(
            records: document.records.filter { $0.key.hasPrefix(prefix) }.map {
                Record(String($0.key.dropFirst(prefix.count)), $0.value)
            })
        if document.records.contains(where: { $0.key == "tls" }) {
            let descriptor: Int32 = try document.number("tls")
            guard descriptor == tlsDescriptor else { throw .invalid(key: "tls", value: String(descriptor)) }
            hasTLS = true
        }
        isLater = document.records.contains { $0.key == "isLater" }
    }
}

/// What a worker has from its arbiter, ready for use.
public struct WorkerInheritance: ~Copyable {
    public let control: WorkerChannel
    /// Its own place on the scoreboard.
    public let slot: WorkerSlot
    public let scoreboard: Scoreboard
    /// Owned by the worker.
    public let listeners: [InheritedListener]
    public let serial: UInt64
    public let generation: UInt64
    public let arbiter: Int32
    /// For its routers.
    public let softDescriptorLimit: UInt64
    public let settings: Settings
    /// tproxy has served before.
    public let isLater: Bool
    /// Whom to become once everything is open, nil to stay what it is.
    public let identity: UserIdentity?
    /// Certificates and keys, until somebody takes them.
    private var tlsMaterial: TLSMaterial?

    init(_ document: InheritedDocument) throws(InheritanceError) {
        let inheritance = try Inheritance(document)
        let material = try Self.material(inheritance)
        let last = Inheritance.firstListener + Int32(inheritance.binds.count)
        try InheritedDocument.close(onExec: Inheritance.controlDescriptor..<last)
        let control = try InheritanceError.system { () throws(Errno) in
            try WorkerChannel(Descriptor(owning: Inheritance.controlDescriptor))
        }
        try self.init(
            inheritance, control: control, scoreboard: Descriptor(owning: Inheritance.scoreboardDescriptor),
            material)
    }

    /// Opens the parcel and closes it, before anything of this process runs that could lose it. From then on nobody but root
    /// sees the memory it is in: routers of this worker and of others may have the same user.
    private static func material(_ inheritance: Inheritance) throws(InheritanceError) -> TLSMaterial? {
        guard inheritance.hasTLS else { return nil }
        try InheritanceError.system { () throws(Errno) in try Process.hideMemory() }
        return try TLSParcel(Descriptor(owning: inheritance.tlsDescriptor)).material()
    }

    private init(
        _ inheritance: Inheritance, control: consuming WorkerChannel, scoreboard: consuming Descriptor,
        _ material: TLSMaterial?
    ) throws(InheritanceError) {
        let board: Scoreboard
        do throws(Scoreboard.Failure) {
            board = try Scoreboard(mapping: scoreboard)
        } catch {
            throw .scoreboard(error.description)
        }
        guard let slot = board.slot(inheritance.slot) else {
            throw .invalid(key: "slot", value: String(inheritance.slot))
        }
        self.control = control
        self.slot = slot
        self.scoreboard = board
        listeners = inheritance.binds.indices.map {
            InheritedListener(
                descriptor: Inheritance.firstListener + Int32($0), bind: inheritance.binds[$0],
                isTLS: inheritance.settings.speaksTLS(listener: $0))
        }
        serial = inheritance.serial
        generation = inheritance.generation
        arbiter = inheritance.arbiter
        softDescriptorLimit = inheritance.softDescriptorLimit
        settings = inheritance.settings
        identity = inheritance.identity
        isLater = inheritance.isLater
        tlsMaterial = material
    }

    /// Certificates and keys, once: the caller wipes them.
    public mutating func takeTLSMaterial() -> TLSMaterial? {
        defer { tlsMaterial = nil }
        return tlsMaterial
    }

    /// The control channel, for whoever serves it; the rest has been read by then.
    public consuming func takeControl() -> WorkerChannel { control }
}
