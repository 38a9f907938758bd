import Config
import Control
import Foundation
import TLS
import Testing

@testable import Supervisor

@Suite("What the arbiter keeps of certificates and keys")
struct TLSKeeperTests {
    /// A folder with a certificate and its key in one file, made anew.
    final class Folder {
        let path: String
        var file: String { path + "/site.pem" }

        init() throws {
            path = NSTemporaryDirectory() + "tproxy-keeper-\(UUID().uuidString)"
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            try renew()
        }

        func renew() throws {
            let openssl = Foundation.Process()
            openssl.executableURL = URL(filePath: "/usr/bin/env")
            openssl.arguments = [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                "10", "-subj", "/CN=localhost", "-keyout", file, "-out", path + "/certificate",
            ]
            openssl.standardError = FileHandle.nullDevice
            try openssl.run()
            openssl.waitUntilExit()
            try #require(openssl.terminationStatus == 0)
            let both =
                try Data(contentsOf: URL(filePath: path + "/certificate")) + Data(contentsOf: URL(filePath: file))
            try both.write(to: URL(filePath: file))
        }

        deinit { try? FileManager.default.removeItem(atPath: path) }
    }

    private static let keys = (1...4).map { [UInt8](repeating: $0, count: TLSMaterial.ticketKeyBytes) }

    @Test("a new ticket key comes first, three are kept, and certificates stay what they are")
    func ticketKeys() throws {
        let folder = try Folder()
        var keeper = try TLSKeeper(TLSSettings(certificateFiles: [folder.file]))
        var before = try keeper.parcel.material()
        #expect(before.ticketKeys.count == 1 && before.certificates.count == 1)
        for count in [2, 3, 3, 3] {
            try keeper.renewTicketKey()
            let after = try keeper.parcel.material()
            #expect(after.ticketKeys.count == count && Set(after.ticketKeys).count == count)
            #expect(Array(after.ticketKeys.dropFirst()) == Array(before.ticketKeys.prefix(count - 1)))
            #expect(after.certificates == before.certificates)
            before = after
        }
        let handed = try keeper.ticketKeys().material()
        #expect(handed == TLSMaterial(certificates: [], ticketKeys: before.ticketKeys))
    }

    @Test("keys of an arbiter before this one are used on, as many as are kept")
    func succession() throws {
        let folder = try Folder()
        let keeper = try TLSKeeper(TLSSettings(certificateFiles: [folder.file]), ticketKeys: Self.keys)
        #expect(try keeper.parcel.material().ticketKeys == Array(Self.keys.prefix(3)))
    }

    @Test("an OCSP response that is none keeps nothing up; it is said once for each time that it is read")
    func responses() throws {
        let folder = try Folder()
        let warning = "not stapled: \(folder.file).ocsp: it is no OCSP response (DER)"
        try Data("nothing".utf8).write(to: URL(filePath: folder.file + ".ocsp"))
        var keeper = try TLSKeeper(TLSSettings(certificateFiles: [folder.file]))
        for _ in 0..<2 {
            let said = [keeper.takeWarnings(), keeper.takeWarnings()]
            #expect(said == [[warning], []])
            let isNew = try keeper.reload()
            #expect(!isNew)
        }
    }

    @Test("files that have changed are taken, those that have not are not, and bad ones change nothing")
    func reload() throws {
        let folder = try Folder()
        var keeper = try TLSKeeper(TLSSettings(certificateFiles: [folder.file]), ticketKeys: [Self.keys[0]])
        let first = try keeper.parcel.material()
        var isNew = try keeper.reload()
        #expect(!isNew)
        try folder.renew()
        isNew = try keeper.reload()
        #expect(isNew)
        let second = try keeper.parcel.material()
        #expect(second.certificates != first.certificates && second.ticketKeys == first.ticketKeys)
        try Data("nothing".utf8).write(to: URL(filePath: folder.file))
        var message: String?
        do throws(TLSFailure) {
            _ = try keeper.reload()
        } catch {
            message = error.message
        }
        #expect(message?.hasPrefix(folder.file + ": ") == true)
        #expect(try keeper.parcel.material() == second)
        // What it keeps is good without the file.
        try keeper.renewTicketKey()
        #expect(try keeper.parcel.material().certificates == second.certificates)
    }
}
