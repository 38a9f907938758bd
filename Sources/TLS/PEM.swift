// Certificates and keys out of PEM, from memory: nothing here opens a file, asks for a passphrase, or blocks.

import COpenSSL

/// A certificate, freed with its last reference.
final class Certificate {
    let x509: OpaquePointer

    /// Takes it over.
    init(owning x509: OpaquePointer) { self.x509 = x509 }

    deinit { X509_free(x509) }

    /// The host names it is for, in lower case: the DNS names among its alternative names, and only where there are
    /// none its common name (RFC 6125 6.4.4). Names that no client can send are left out.
    var hostNames: [String] {
        let alternative = alternativeNames(of: x509).compactMap { kind, bytes in kind == GEN_DNS ? hostName(bytes) : nil
        }
        if !alternative.isEmpty { return alternative }
        guard let subject = X509_get_subject_name(x509) else { return [] }
        let place = X509_NAME_get_index_by_NID(subject, NID_commonName, -1)
        guard place >= 0, let entry = X509_NAME_get_entry(subject, place), let text = X509_NAME_ENTRY_get_data(entry)
        else { return [] }
        return hostName(asn1Bytes(text)).map { [$0] } ?? []
    }
}

/// The subject's alternative names that are text or addresses, with their kinds (`GEN_DNS` …), as they are encoded.
func alternativeNames(of x509: OpaquePointer) -> [(kind: Int32, bytes: [UInt8])] {
    guard let stack = X509_get_ext_d2i(x509, NID_subject_alt_name, nil, nil).map({ OpaquePointer($0) }) else {
        ERR_clear_error()
        return []
    }
    defer { GENERAL_NAMES_free(stack) }
    return (0..<max(0, tp_general_names_count(stack))).compactMap { index in
        guard let name = tp_general_name(stack, index), let text = tp_general_name_string(name) else { return nil }
        return (name.pointee.type, [UInt8](asn1Bytes(text)))
    }
}

/// The bytes of an ASN.1 string, which are good as long as it is.
func asn1Bytes(_ text: UnsafePointer<ASN1_STRING>) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: ASN1_STRING_get0_data(text), count: Int(max(0, ASN1_STRING_length(text))))
}

/// A host name in lower case and without a final dot; nil unless it is of visible ASCII and has a length that names
/// have (RFC 1035 2.3.4, RFC 6066 3): what is compared or shown is all of a name, never what stands before its NUL.
func hostName(_ bytes: some BidirectionalCollection<UInt8>) -> String? {
    var bytes = bytes[...]
    if bytes.count > 1, let last = bytes.last, last == UInt8(ascii: ".") { bytes = bytes.dropLast() }
    guard (1...255).contains(bytes.count), bytes.allSatisfy({ (0x21...0x7e).contains($0) }) else { return nil }
    let letters = UInt8(ascii: "A")...UInt8(ascii: "Z")
    return String(decoding: bytes.map { letters.contains($0) ? $0 | 0x20 : $0 }, as: UTF8.self)
}

/// A private key, freed with its last reference.
final class PrivateKey {
    let evp: OpaquePointer

    /// Takes it over.
    init(owning evp: OpaquePointer) { self.evp = evp }

    deinit { EVP_PKEY_free(evp) }
}

/// PEM bytes of one file, read from the front.
///
/// The copy in here is cleared when it is freed, as OpenSSL does with all memory of this kind.
struct PEMReader: ~Copyable {
    /// The file, for messages.
    private let name: String
    private let bytes: [UInt8]
    private let bio: OpaquePointer

    init(_ bytes: [UInt8], name: String) throws(TLSFailure) {
        ERR_clear_error()
        guard let bio = BIO_new(BIO_s_mem()) else { throw .fromQueue(name) }
        guard let count = Int32(exactly: bytes.count), count == 0 || BIO_write(bio, bytes, count) == count else {
            BIO_free(bio)
            throw .fromQueue(name)
        }
        self.name = name
        self.bytes = bytes
        self.bio = bio
    }

    deinit { BIO_free(bio) }

    /// All certificates, at least one. Whatever else lies between them is passed over.
    consuming func certificates() throws(TLSFailure) -> [Certificate] {
        var certificates: [Certificate] = []
        while let x509 = PEM_read_bio_X509(bio, nil, refusePassphrase, nil) {
            certificates.append(Certificate(owning: x509))
        }
        let last = ERR_peek_last_error()
        let isEnd = ERR_GET_LIB(last) == ERR_LIB_PEM && ERR_GET_REASON(last) == PEM_R_NO_START_LINE
        if isEnd, certificates.isEmpty, !bytes.contains(Self.certificateMark) {
            ERR_clear_error()
            throw TLSFailure("\(name): there is no certificate in it (PEM)")
        }
        guard isEnd, !certificates.isEmpty else { throw .fromQueue("\(name): no certificate can be read") }
        ERR_clear_error()
        return certificates
    }

    /// How the first line of every private key ends, whatever kind it is of (RFC 7468), and of every certificate.
    private static let keyMark = Array("PRIVATE KEY-----".utf8)
    private static let certificateMark = Array("CERTIFICATE-----".utf8)

    /// The first private key.
    consuming func privateKey() throws(TLSFailure) -> PrivateKey {
        var isEncrypted = false
        guard let key = PEM_read_bio_PrivateKey(bio, nil, refusePassphrase, &isEncrypted) else {
            let failure = TLSFailure.fromQueue("\(name): no private key can be read")
            if isEncrypted {
                throw TLSFailure("\(name): the private key is encrypted, and there is nobody to ask for its passphrase")
            }
            // OpenSSL only says "unsupported" of what is no key.
            throw bytes.contains(Self.keyMark) ? failure : TLSFailure("\(name): there is no private key in it (PEM)")
        }
        ERR_clear_error()
        return PrivateKey(owning: key)
    }
}

/// Answers OpenSSL's question for a passphrase, which it would otherwise put to the terminal. The argument is a Bool
/// that says afterwards whether there was one.
private func refusePassphrase(
    _: UnsafeMutablePointer<CChar>?, _: Int32, _: Int32, _ asked: UnsafeMutableRawPointer?
) -> Int32 {
    asked?.assumingMemoryBound(to: Bool.self).pointee = true
    return -1
}
