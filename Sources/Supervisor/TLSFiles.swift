// Reading what the `--ssl-*` options name: certificates, keys, authorities. In the arbiter, which may read keys, and never
// anywhere else.

import Config
import Glibc
import Linux
import SystemPackage
import TLS

/// The files of `--ssl-certfile`, with what lies beside them, `--ssl-keyfile` and `--ssl-ca-certs`.
enum TLSFiles {
    /// Reads all of them, without ticket keys. A failure names the file and what is wrong; so do `warnings`, about files
    /// that can be done without.
    static func read(_ settings: TLSSettings, _ warnings: inout [String]) throws(TLSFailure) -> TLSMaterial {
        var material = TLSMaterial(certificates: [])
        do throws(TLSFailure) {
            try read(settings, into: &material, &warnings)
        } catch {
            // One bad file is no reason to leave the other files' keys lying about.
            material.wipe()
            throw error
        }
        return material
    }

    private static func read(
        _ settings: TLSSettings, into material: inout TLSMaterial, _ warnings: inout [String]
    ) throws(TLSFailure) {
        var room = Limits.certificateBytesMax
        for (index, path) in settings.certificateFiles.enumerated() {
            let key = index < settings.keyFiles.count ? settings.keyFiles[index] : nil
            for pair in try pairs(path, key) {
                guard material.certificates.count < Limits.certificatesMax else {
                    throw TLSFailure("\(path): there are more than \(Limits.certificatesMax) certificates")
                }
                let name = pair.key.map { "\(pair.certificate) with \($0)" } ?? pair.certificate
                let chain = try contents(pair.certificate, &room)
                // There before the key is read, so that it is cleared should that fail.
                material.certificates.append(
                    .init(name: name, chain: chain, key: chain, ocspResponse: response(pair, chain, &warnings)))
                guard let path = pair.key else { continue }
                material.certificates[material.certificates.count - 1].key = try contents(path, &room)
            }
        }
        if settings.clientCertificates != .none, let path = settings.clientAuthoritiesFile {
            material.clientAuthorities = try contents(path, &room)
        }
    }

    private struct Pair {
        let certificate: String
        /// Nil when the certificate's file has it.
        let key: String?
    }

    /// What an option's path stands for: itself, or what is in a folder.
    private static func pairs(_ path: String, _ key: String?) throws(TLSFailure) -> [Pair] {
        guard isFolder(path) else { return [Pair(certificate: path, key: key)] }
        if let key { throw TLSFailure("\(path): is a folder, which has its own keys; \(key) does not belong to it") }
        let names = try names(in: path)
        let all = Set(names)
        let pairs = names.compactMap { name -> Pair? in
            guard name.hasSuffix(".pem") || name.hasSuffix(".crt") else { return nil }
            let key = "\(name.dropLast(4)).key"
            return Pair(certificate: "\(path)/\(name)", key: all.contains(key) ? "\(path)/\(key)" : nil)
        }
        guard !pairs.isEmpty else {
            throw TLSFailure("\(path): there is no NAME.pem and no NAME.crt in this folder")
        }
        return pairs
    }

    /// What is in `FILE.ocsp`, if clients can be given that.
    private static func response(_ pair: Pair, _ chain: [UInt8], _ warnings: inout [String]) -> [UInt8]? {
        let path = pair.certificate + ".ocsp"
        guard FileIdentity(following: path) != nil else { return nil }
        do throws(TLSFailure) {
            let response = try contents(path, bytesMax: Limits.ocspResponseBytesMax)
            try OCSPResponse.check(response, of: chain, name: path)
            return response
        } catch {
            warnings.append("not stapled: \(error)")
            return nil
        }
    }

    private static func isFolder(_ path: String) -> Bool {
        var status = stat()
        return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    /// What a folder holds, hidden files apart, in the order of the bytes of the names: everywhere the same one is the first.
    private static func names(in folder: String) throws(TLSFailure) -> [String] {
        guard let entries = unsafe opendir(folder) else {
            throw TLSFailure("\(folder): cannot be read: \(Errno(rawValue: errno))")
        }
        defer { unsafe closedir(entries) }
        var names: [String] = []
        while let entry = unsafe readdir(entries) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                unsafe pointer.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            guard !name.hasPrefix(".") else { continue }
            names.append(name)
            guard names.count <= 4 * Limits.certificatesMax else {
                throw TLSFailure("\(folder): there are more than \(4 * Limits.certificatesMax) files")
            }
        }
        return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    }

    /// A whole file, which has to be a regular one: nothing here waits.
    private static func contents(_ path: String, bytesMax: Int) throws(TLSFailure) -> [UInt8] {
        do throws(RegularFile.Failure) {
            return try RegularFile(path: path).contents(bytesMax: bytesMax)
        } catch {
            let reason =
                switch error {
                case .notRegular: "is no regular file"
                case .system(.fileTooLarge): "has more than \(bytesMax) bytes"
                case .system(let error): "cannot be read: \(error)"
                }
            throw TLSFailure("\(path): \(reason)")
        }
    }

    /// The same for what has a place among all of them.
    private static func contents(_ path: String, _ room: inout Int) throws(TLSFailure) -> [UInt8] {
        var bytes = try contents(path, bytesMax: Limits.certificateFileBytesMax)
        room -= bytes.count
        guard room >= 0 else {
            bytes.wipe()
            throw TLSFailure("\(path): with it there are more than \(Limits.certificateBytesMax) bytes to read")
        }
        return bytes
    }
}
