import Config
import Glibc
import TLS
import Testing

@testable import Supervisor

@Suite("Reading what --ssl-certfile and its kin name")
struct TLSFilesTests {
    /// A folder of its own, with these files.
    final class Folder {
        let path: String
        init(_ files: [String: String]) throws {
            var template = Array("/tmp/tproxy-certificates-XXXXXX".utf8CString)
            try #require(mkdtemp(&template) != nil)
            path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
            for (name, text) in files { write(name, text) }
        }
        func write(_ name: String, _ text: String) {
            let raw = open("\(path)/\(name)", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
            _ = Glibc.write(raw, text, text.utf8.count)
            close(raw)
        }
        deinit {
            if let entries = opendir(path) {
                while let entry = readdir(entries) {
                    let name = withUnsafePointer(to: &entry.pointee.d_name) {
                        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                    }
                    if name != ".", name != ".." { unlink("\(path)/\(name)") }
                }
                closedir(entries)
            }
            rmdir(path)
        }
    }

    /// With nothing to warn of.
    private static func read(_ settings: TLSSettings) throws(TLSFailure) -> TLSMaterial {
        var warnings: [String] = []
        defer { #expect(warnings == []) }
        return try TLSFiles.read(settings, &warnings)
    }

    private func read(_ certificates: [String], _ keys: [String] = []) throws(TLSFailure) -> TLSMaterial {
        var settings = TLSSettings(certificateFiles: certificates)
        settings.keyFiles = keys
        return try Self.read(settings)
    }

    private func refusal(_ certificates: [String], _ keys: [String] = []) -> String? {
        do throws(TLSFailure) {
            _ = try read(certificates, keys)
            return nil
        } catch {
            return error.message
        }
    }

    @Test("a certificate goes with its key, or has it with it")
    func pairs() throws {
        let folder = try Folder(["a.crt": "A", "a.key": "KA", "both": "B+KB"])
        let path = folder.path
        let material = try read(["\(path)/a.crt", "\(path)/both"], ["\(path)/a.key"])
        #expect(
            material.certificates == [
                .init(name: "\(path)/a.crt with \(path)/a.key", chain: Array("A".utf8), key: Array("KA".utf8)),
                .init(name: "\(path)/both", chain: Array("B+KB".utf8), key: Array("B+KB".utf8)),
            ])
        #expect(material.clientAuthorities == nil && material.ticketKeys.isEmpty)
    }

    @Test("a folder is read by the names in it, in their order; what is neither certificate nor key stays unread")
    func folders() throws {
        let folder = try Folder([
            "z.pem": "Z", "b.crt": "B", "b.key": "KB", "a.pem": "A", "a.key": "KA", "README": "x", ".hidden.pem": "x",
        ])
        let material = try read([folder.path])
        #expect(material.certificates.map { String(decoding: $0.chain, as: UTF8.self) } == ["A", "B", "Z"])
        #expect(material.certificates.map { String(decoding: $0.key, as: UTF8.self) } == ["KA", "KB", "Z"])
        let empty = try Folder(["x.key": "K"])
        #expect(
            refusal([empty.path])
                == "\(empty.path): there is no NAME.pem and no NAME.crt in this folder")
        #expect(
            refusal([folder.path], ["k"])
                == "\(folder.path): is a folder, which has its own keys; k does not belong to it")
    }

    @Test("an OCSP response that cannot be used is a warning, whatever is wrong with it")
    func responses() throws {
        let folder = try Folder([
            "a.crt": "A", "a.key": "KA", "a.crt.ocsp": String(repeating: "x", count: Limits.ocspResponseBytesMax + 1),
            "b.pem": "B", "c.pem": "C", "c.ocsp": "x", "b.ocsp": "x",
        ])
        let path = folder.path
        mkfifo("\(path)/b.pem.ocsp", 0o600)
        var warnings: [String] = []
        let material = try TLSFiles.read(TLSSettings(certificateFiles: [path]), &warnings)
        #expect(material.certificates.count == 3 && material.certificates.allSatisfy { $0.ocspResponse == nil })
        #expect(
            warnings == [
                "not stapled: \(path)/a.crt.ocsp: has more than 16000 bytes",
                "not stapled: \(path)/b.pem.ocsp: is no regular file",
            ])
    }

    @Test("what cannot be read is named with the reason, and nothing is waited for")
    func refused() throws {
        let folder = try Folder(["big": String(repeating: "x", count: 1_048_577), "a": "A"])
        let path = folder.path
        #expect(refusal(["\(path)/none"]) == "\(path)/none: cannot be read: No such file or directory")
        #expect(refusal(["\(path)/a"], ["\(path)/none"]) == "\(path)/none: cannot be read: No such file or directory")
        #expect(refusal(["\(path)/big"]) == "\(path)/big: has more than 1048576 bytes")
        mkfifo("\(path)/fifo", 0o600)
        #expect(refusal(["\(path)/fifo"]) == "\(path)/fifo: is no regular file")
        #expect(refusal(["/dev/zero"]) == "/dev/zero: is no regular file")
        // Each is small enough, but there are too many of them.
        folder.write("some", String(repeating: "x", count: 1_000_000))
        #expect(
            refusal([String](repeating: "\(path)/some", count: 17))
                == "\(path)/some: with it there are more than 16777216 bytes to read")
    }

    @Test("what was read is in no memory any more when a file after it cannot be, or it is cleared")
    func cleared() async {
        await #expect(processExitsWith: .success) {
            let folder = try Folder([:])
            let file = try SecretFile("\(folder.path)/a.pem")
            var settings = TLSSettings(certificateFiles: [file.path])
            var material = try Self.read(settings)
            try #require(file.copiesInMemory() > 0)
            material.wipe()
            #expect(try file.copiesInMemory() == 0)
            // Its key, the next certificate, too many of them.
            let many = [String](repeating: file.path, count: 300)
            for (certificates, keys) in [([file.path], ["/none"]), ([file.path, "/none"], []), (many, [])] {
                settings.certificateFiles = certificates
                settings.keyFiles = keys
                #expect(throws: TLSFailure.self) { try Self.read(settings) }
                #expect(try file.copiesInMemory() == 0)
            }
        }
    }

    @Test("authorities are read when clients are asked for certificates")
    func authorities() throws {
        let folder = try Folder(["a": "A", "ca": "CA"])
        var settings = TLSSettings(certificateFiles: ["\(folder.path)/a"])
        settings.clientAuthoritiesFile = "\(folder.path)/ca"
        #expect(try Self.read(settings).clientAuthorities == nil)
        settings.clientCertificates = .required
        #expect(try Self.read(settings).clientAuthorities == Array("CA".utf8))
        settings.clientAuthoritiesFile = "\(folder.path)/none"
        #expect(throws: TLSFailure.self) { try Self.read(settings) }
    }
}
