// What the arbiter keeps of TLS towards clients: certificates and keys as they were last read and found good, and the ticket
// keys, which it makes itself. All of it is in one parcel, for the workers to come; nothing else of it stays in memory.

import Config
import Control
import Linux
import SystemPackage
import TLS

struct TLSKeeper: ~Copyable {
    private let settings: TLSSettings
    /// What workers get.
    private(set) var parcel: TLSParcel
    private var warnings: [String] = []

    /// Reads the files and makes sure that they can be used. `ticketKeys` are those of an arbiter before this one.
    init(_ settings: TLSSettings, ticketKeys: [[UInt8]]? = nil) throws(TLSFailure) {
        self.settings = settings
        var warnings: [String] = []
        var material = try TLSFiles.read(settings, &warnings)
        defer { material.wipe() }
        if let ticketKeys {
            material.ticketKeys = Array(ticketKeys.prefix(Limits.ticketKeysMax))
        } else {
            material.ticketKeys = [try Self.newKey()]
        }
        parcel = try Self.packed(material, settings)
        self.warnings = warnings
    }

    /// Reads the files again. True when they have changed: then the parcel is another one. A failure changes nothing.
    mutating func reload() throws(TLSFailure) -> Bool {
        var old = try unpacked()
        defer { old.wipe() }
        var warnings: [String] = []
        var new = try TLSFiles.read(settings, &warnings)
        defer { new.wipe() }
        new.ticketKeys = old.ticketKeys
        let isNew = new != old
        if isNew { parcel = try Self.packed(new, settings) }
        self.warnings = warnings
        return isNew
    }

    /// What was wrong with files that can be done without, when all were last read: once.
    mutating func takeWarnings() -> [String] {
        defer { warnings = [] }
        return warnings
    }

    /// From now on a new key seals tickets; those of the keys before it are opened for a while. A failure changes nothing.
    mutating func renewTicketKey() throws(TLSFailure) {
        var material = try unpacked()
        defer { material.wipe() }
        material.ticketKeys.insert(try Self.newKey(), at: 0)
        while material.ticketKeys.count > Limits.ticketKeysMax {
            material.ticketKeys[material.ticketKeys.count - 1].wipe()
            material.ticketKeys.removeLast()
        }
        parcel = try Self.packed(material, settings)
    }

    /// The ticket keys alone, for a successor: it reads the files itself.
    func ticketKeys() throws(TLSFailure) -> TLSParcel {
        var material = try unpacked()
        defer { material.wipe() }
        var keys = TLSMaterial(certificates: [], ticketKeys: material.ticketKeys)
        defer { keys.wipe() }
        return try Self.system { () throws(Errno) in try TLSParcel(keys) }
    }

    private func unpacked() throws(TLSFailure) -> TLSMaterial {
        do throws(InheritanceError) {
            return try parcel.material()
        } catch {
            throw TLSFailure("\(error)")
        }
    }

    /// Nothing is given to workers that they could not use.
    private static func packed(_ material: TLSMaterial, _ settings: TLSSettings) throws(TLSFailure) -> TLSParcel {
        _ = try ListenerTLS(material, settings)
        return try system { () throws(Errno) in try TLSParcel(material) }
    }

    private static func newKey() throws(TLSFailure) -> [UInt8] {
        try system { () throws(Errno) in try Process.randomBytes(TLSMaterial.ticketKeyBytes) }
    }

    private static func system<Result: ~Copyable>(_ body: () throws(Errno) -> Result) throws(TLSFailure) -> Result {
        do throws(Errno) {
            return try body()
        } catch {
            throw TLSFailure("\(error)")
        }
    }
}
