// What a child of the arbiter inherits: one document for every role, named here for the spawner and for the spawned.
//
// It travels as a memfd on descriptor 3, and TPROXY_INHERITANCE=3 in the environment says so. Not in the environment
// itself, which anybody may read in /proc and whose entries are limited to 128 KiB; not in the arguments, which are the
// title. Descriptors behind it, in this order:
//
//     3  the document          4  the control channel        5  the scoreboard        6, 7, …  the listeners
//
// The document is records `key=value`, each ended by a NUL, which no value can hold: `tr '\0' '\n' </proc/PID/fd/3`.
// The first is `tproxy-inheritance=VERSION`. Unknown keys are ignored, so keys may be added without a new version.

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

    public init(descriptor: Int32, bind: BindAddress) {
        self.descriptor = descriptor
        self.bind = bind
    }

    /// What routers and logs call it: the `-b` text, normalised.
    public var name: String { bind.description }
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
        case .otherVersion(let version): "what was inherited has version \(version), not \(Inheritance.version)"
        case .missing(let key): "what was inherited lacks \(key)"
        case .invalid(let key, let value): "what was inherited has a wrong \(key): \(value)"
        case .scoreboard(let reason): reason
        }
    }
}

/// The document as values.
public struct Inheritance: Equatable, Sendable {
    public static let version = 1
    static let environmentName = "TPROXY_INHERITANCE"
    static let documentDescriptor = Spawn.firstInherited
    static let controlDescriptor = documentDescriptor + 1
    static let scoreboardDescriptor = documentDescriptor + 2
    static let firstListener = documentDescriptor + 3
    /// Settings and 64 listeners fit many times over.
    static let bytesMax = 1 << 20

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
    public var settings: Settings

    public init(
        serial: UInt64, slot: Int, generation: UInt64, arbiter: Int32, softDescriptorLimit: UInt64,
        binds: [BindAddress], settings: Settings
    ) {
        self.serial = serial
        self.slot = slot
        self.generation = generation
        self.arbiter = arbiter
        self.softDescriptorLimit = softDescriptorLimit
        self.binds = binds
        self.settings = settings
    }

    /// Starts a worker that inherits this document and these descriptors, and returns its pid.
    /// `listeners` are in the order of `binds`; everything stays the caller's.
    public func spawnWorker(
        title: String, control: borrowing Descriptor, scoreboard: borrowing Descriptor, listeners: [Int32]
    ) throws(Errno) -> Int32 {
        let document = try SharedMemory.file(name: "tproxy-inheritance", holding: encoded())
        let environment = Spawn.workerEnvironment(Process.environment()).filter {
            !$0.hasPrefix(Self.environmentName + "=")
        }
        return try Spawn.worker(
            arguments: [Self.padded(title)],
            environment: environment + ["\(Self.environmentName)=\(Self.documentDescriptor)"],
            descriptors: [document.raw, control.raw, scoreboard.raw] + listeners)
    }

    /// A title with room for a longer one: a process can only write over what it was started with.
    private static func padded(_ title: String) -> String {
        title + String(repeating: " ", count: max(0, Limits.nameBytesMax + 64 - title.utf8.count))
    }

    /// The bytes of the document.
    public func encoded() -> [UInt8] {
        var records = [
            Record("tproxy-inheritance", String(Self.version)),
            Record("role", "worker"),
            Record("serial", String(serial)),
            Record("slot", String(slot)),
            Record("generation", String(generation)),
            Record("arbiter", String(arbiter)),
            Record("softDescriptorLimit", String(softDescriptorLimit)),
            Record("control", String(Self.controlDescriptor)),
            Record("scoreboard", String(Self.scoreboardDescriptor)),
        ]
        records += binds.map { Record("listener", $0.description) }
        records += settings.records.map { Record("settings." + $0.key, $0.value) }
        return records.flatMap { Array("\($0.key)=\($0.value)\0".utf8) }
    }

    /// Reads a document; whatever comes, it never traps.
    public init(decoding bytes: [UInt8]) throws(InheritanceError) {
        guard bytes.last == 0 else { throw .notADocument }
        var records: [Record] = []
        for part in bytes.dropLast().split(separator: 0, omittingEmptySubsequences: false) {
            guard let equals = part.firstIndex(of: UInt8(ascii: "=")) else { throw .notADocument }
            records.append(
                Record(
                    String(decoding: part[..<equals], as: UTF8.self),
                    String(decoding: part[(equals + 1)...], as: UTF8.self)))
        }
        guard let first = records.first, first.key == "tproxy-inheritance" else { throw .notADocument }
        guard first.value == String(Self.version) else { throw .otherVersion(first.value) }

        func text(_ key: String) throws(InheritanceError) -> String {
            guard let record = records.first(where: { $0.key == key }) else { throw .missing(key) }
            return record.value
        }
        func number<Number: FixedWidthInteger>(_ key: String) throws(InheritanceError) -> Number {
            let value = try text(key)
            guard let number = Number(value), number >= 0 else { throw .invalid(key: key, value: value) }
            return number
        }
        let role = try text("role")
        guard role == "worker" else { throw .invalid(key: "role", value: role) }
        for (key, place) in [("control", Self.controlDescriptor), ("scoreboard", Self.scoreboardDescriptor)] {
            let descriptor: Int32 = try number(key)
            guard descriptor == place else { throw .invalid(key: key, value: String(descriptor)) }
        }
        serial = try number("serial")
        slot = try number("slot")
        generation = try number("generation")
        arbiter = try number("arbiter")
        softDescriptorLimit = try number("softDescriptorLimit")
        binds = []
        for record in records where record.key == "listener" {
            guard let bind = BindAddress(record.value) else { throw .invalid(key: "listener", value: record.value) }
            binds.append(bind)
        }
        let prefix = "settings."
        settings = try Settings(
            records: records.filter { $0.key.hasPrefix(prefix) }.map {
                Record(String($0.key.dropFirst(prefix.count)), $0.value)
            })
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

    /// Whether this process has been started as a worker. Looks at the environment alone.
    public static var isPresent: Bool { documentNumber != nil }

    private static var documentNumber: Int32? {
        let prefix = Inheritance.environmentName + "="
        guard let entry = Process.environment().first(where: { $0.hasPrefix(prefix) }) else { return nil }
        return Int32(entry.dropFirst(prefix.count)) ?? -1
    }

    /// Takes over what the arbiter has left, once.
    public static func take() throws(InheritanceError) -> WorkerInheritance {
        guard documentNumber == Inheritance.documentDescriptor else { throw .notADocument }
        let document = Descriptor(owning: Inheritance.documentDescriptor)
        let bytes = try system { () throws(Errno) in
            try SharedMemory.contents(of: document.raw, bytesMax: Inheritance.bytesMax)
        }
        let inheritance = try Inheritance(decoding: bytes)
        try system { () throws(Errno) in
            let count = Int32(inheritance.binds.count)
            for raw in Inheritance.controlDescriptor..<(Inheritance.firstListener + count) {
                try Socket.setCloseOnExec(raw)
            }
        }
        let control = try system { () throws(Errno) in
            try WorkerChannel(Descriptor(owning: Inheritance.controlDescriptor))
        }
        return try WorkerInheritance(
            inheritance, control: control, scoreboard: Descriptor(owning: Inheritance.scoreboardDescriptor))
    }

    private init(
        _ inheritance: Inheritance, control: consuming WorkerChannel, scoreboard: consuming Descriptor
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
            InheritedListener(descriptor: Inheritance.firstListener + Int32($0), bind: inheritance.binds[$0])
        }
        serial = inheritance.serial
        generation = inheritance.generation
        arbiter = inheritance.arbiter
        softDescriptorLimit = inheritance.softDescriptorLimit
        settings = inheritance.settings
    }

    /// The control channel, for whoever serves it; the rest has been read by then.
    public consuming func takeControl() -> WorkerChannel { control }

    private static func system<Result: ~Copyable>(
        _ body: () throws(Errno) -> Result
    ) throws(InheritanceError) -> Result {
        do throws(Errno) {
            return try body()
        } catch {
            throw .system(error)
        }
    }
}
