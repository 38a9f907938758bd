// Certificates made for a test, by OpenSSL's functions: nothing is read from or written to a file.

import COpenSSL
import Config
import Glibc
import Testing

/// A certificate with its key, perhaps signed by another one.
final class TestCertificate {
    enum KeyKind { case ecdsa, rsa }

    let x509: OpaquePointer
    let key: OpaquePointer
    private(set) var chain: [TestCertificate] = []

    /// - Parameters:
    ///   - names: as OpenSSL writes them, `DNS:a.example`, `IP:127.0.0.1`.
    ///   - rawName: a DNS name of any bytes instead.
    ///   - commonName: the subject's; nil for none.
    ///   - issuer: who signs; nil when it signs itself.
    ///   - days: from when to when it is good, counted from now.
    init(
        _ names: [String] = [], rawName: [UInt8]? = nil, commonName: String? = nil, issuer: TestCertificate? = nil,
        isAuthority: Bool = false,
        keyKind: KeyKind = .ecdsa, days: ClosedRange<Int> = -1...30
    ) throws {
        key = try Self.key(keyKind)
        x509 = try #require(X509_new())
        X509_set_version(x509, 2)
        ASN1_INTEGER_set_uint64(X509_get_serialNumber(x509), .random(in: 1...UInt64(Int64.max)))
        X509_time_adj_ex(X509_getm_notBefore(x509), Int32(days.lowerBound), 0, nil)
        X509_time_adj_ex(X509_getm_notAfter(x509), Int32(days.upperBound), 0, nil)
        X509_set_pubkey(x509, key)
        if let commonName {
            let bytes = Array(commonName.utf8)
            X509_NAME_add_entry_by_NID(
                X509_get_subject_name(x509), NID_commonName, MBSTRING_UTF8, bytes, Int32(bytes.count), -1, 0)
        }
        X509_set_issuer_name(x509, X509_get_subject_name(issuer?.x509 ?? x509))
        if !names.isEmpty { try add(NID_subject_alt_name, names.joined(separator: ",")) }
        if let rawName {
            // SEQUENCE { [2] name }
            let count = UInt8(rawName.count)
            try add(NID_subject_alt_name, "DER:" + ([0x30, count + 2, 0x82, count] + rawName).map(Self.hex).joined())
        }
        if isAuthority { try add(NID_basic_constraints, "critical,CA:TRUE") }
        try #require(X509_sign(x509, issuer?.key ?? key, EVP_sha256()) > 0)
        if let issuer, issuer.isSignedByAnother { chain = [issuer] + issuer.chain }
    }

    deinit {
        X509_free(x509)
        EVP_PKEY_free(key)
    }

    private var isSignedByAnother: Bool {
        X509_NAME_cmp(X509_get_issuer_name(x509), X509_get_subject_name(x509)) != 0
    }

    private func add(_ kind: Int32, _ value: String) throws {
        let made = try #require(X509V3_EXT_nconf_nid(nil, nil, kind, value))
        defer { X509_EXTENSION_free(made) }
        try #require(X509_add_ext(x509, made, -1) == 1)
    }

    private static func hex(_ byte: UInt8) -> String { (byte < 16 ? "0" : "") + String(byte, radix: 16) }

    private static func key(_ kind: KeyKind) throws -> OpaquePointer {
        let maker = try #require(EVP_PKEY_CTX_new_from_name(nil, kind == .rsa ? "RSA" : "EC", nil))
        defer { EVP_PKEY_CTX_free(maker) }
        try #require(EVP_PKEY_keygen_init(maker) == 1)
        switch kind {
        case .rsa: EVP_PKEY_CTX_set_rsa_keygen_bits(maker, 2048)
        case .ecdsa: EVP_PKEY_CTX_set_group_name(maker, "P-256")
        }
        var key: OpaquePointer?
        try #require(EVP_PKEY_generate(maker, &key) == 1)
        return try #require(key)
    }

    // MARK: - PEM

    /// What a function writes into a BIO.
    private static func written(_ write: (OpaquePointer?) -> Int32) -> [UInt8] {
        let bio = BIO_new(BIO_s_mem())
        defer { BIO_free(bio) }
        guard write(bio) == 1 else { return [] }
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = BIO_read(bio, &bytes, Int32(bytes.count))
        return Array(bytes.prefix(Int(max(0, count))))
    }

    /// With those that have signed it, but not the last, which signs itself.
    var pem: [UInt8] {
        ([self] + chain).flatMap { certificate in Self.written { PEM_write_bio_X509($0, certificate.x509) } }
    }

    var keyPEM: [UInt8] { Self.written { PEM_write_bio_PrivateKey($0, key, nil, nil, 0, nil, nil) } }

    /// Encrypted with "secret".
    var encryptedKeyPEM: [UInt8] {
        Self.written { PEM_write_bio_PKCS8PrivateKey($0, key, EVP_aes_256_cbc(), "secret", 6, nil, nil) }
    }

    /// The same, as programs of the last century write it.
    var oldEncryptedKeyPEM: [UInt8] {
        Self.written {
            PEM_write_bio_PrivateKey_traditional($0, key, EVP_aes_256_cbc(), Array("secret".utf8), 6, nil, nil)
        }
    }

    func material(_ name: String = "a.pem") -> TLSMaterial.Certificate {
        TLSMaterial.Certificate(name: name, chain: pem, key: keyPEM)
    }
}
