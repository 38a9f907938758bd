// The document that a child of ours finds on descriptor 3, whatever its role: records of text behind a version.

import Linux
import SystemPackage

/// Records `key=value`, each ended by a NUL, which no value can hold: `tr '\0' '\n' </proc/PID/fd/3`.
///
/// The first is `tproxy-inheritance=VERSION`, the second the role. Unknown keys are ignored, so keys may be added without a
/// new version.
struct InheritedDocument: Hashable, Sendable {
    enum Role: String, Sendable {
        case worker
        /// The arbiter that USR2 has started.
        case successor
        /// The arbiter that `-D` has started.
        case daemon
    }

    static let version = 1
    static let descriptor = Spawn.firstInherited
    private static let environmentName = "TPROXY_INHERITANCE"
    /// Settings and 64 listeners fit many times over.
    private static let bytesMax = 1 << 20

    let role: Role
    let records: [Record]

    init(role: Role, records: [Record]) {
        (self.role, self.records) = (role, records)
    }

    func encoded() -> [UInt8] {
        let first = [Record("tproxy-inheritance", String(Self.version)), Record("role", role.rawValue)]
        return (first + records).flatMap { Array("\($0.key)=\($0.value)\0".utf8) }
    }

    /// Reads a document; whatever comes, it never traps.
    init(decoding bytes: [UInt8]) throws(InheritanceError) {
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
        guard let word = records.first(where: { $0.key == "role" })?.value else { throw .missing("role") }
        guard let role = Role(rawValue: word) else { throw .invalid(key: "role", value: word) }
        self.init(role: role, records: records.filter { $0.key != "role" && $0.key != "tproxy-inheritance" })
    }

    func text(_ key: String) throws(InheritanceError) -> String {
        guard let record = records.first(where: { $0.key == key }) else { throw .missing(key) }
        return record.value
    }

    func number<Number: FixedWidthInteger>(_ key: String) throws(InheritanceError) -> Number {
        let value = try text(key)
        guard let number = Number(value), number >= 0 else { throw .invalid(key: key, value: value) }
        return number
    }

    // MARK: On its way

    static func file(holding bytes: [UInt8]) throws(Errno) -> Descriptor {
        try SharedMemory.file(name: "tproxy-inheritance", holding: bytes)
    }

    /// The environment of a child that is to find a document.
    static func announced(in environment: [String]) -> [String] {
        environment.filter { !$0.hasPrefix(environmentName + "=") } + ["\(environmentName)=\(descriptor)"]
    }

    /// Whether an environment says that there is a document, and where.
    private static func number(in environment: [String]) -> Int32? {
        let prefix = environmentName + "="
        guard let entry = environment.first(where: { $0.hasPrefix(prefix) }) else { return nil }
        return Int32(entry.dropFirst(prefix.count)) ?? -1
    }

    /// The document that this process was started with, nil when there is none. Once: its descriptor is closed.
    static func take() throws(InheritanceError) -> InheritedDocument? {
        guard let number = number(in: Process.environment()) else { return nil }
        guard number == descriptor else { throw .notADocument }
        let file = Descriptor(owning: descriptor)
        let bytes = try InheritanceError.system { () throws(Errno) in
            try SharedMemory.contents(of: file.raw, bytesMax: bytesMax)
        }
        return try InheritedDocument(decoding: bytes)
    }

    /// What came with it must not reach our own children.
    static func close(onExec numbers: Range<Int32>) throws(InheritanceError) {
        try InheritanceError.system { () throws(Errno) in
            for raw in numbers { try Socket.setCloseOnExec(raw) }
        }
    }
}

/// What this process was started as.
public enum StartedAs: ~Copyable {
    /// By a person or a service manager: the command line says what to do.
    case program
    case worker(WorkerInheritance)
    /// The same as `program`, with what another arbiter, or the shell's tproxy under `-D`, has left.
    case arbiter(SuccessionInheritance)

    /// Takes over what was left to this process, once.
    public static func take() throws(InheritanceError) -> StartedAs {
        guard let document = try InheritedDocument.take() else { return .program }
        switch document.role {
        case .worker: return .worker(try WorkerInheritance(document))
        case .successor, .daemon: return .arbiter(try SuccessionInheritance(document))
        }
    }
}
