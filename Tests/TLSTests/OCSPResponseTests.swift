import COpenSSL
import Config
import Glibc
import Testing

@testable import TLS

extension TestCertificate {
    /// What an authority says of certificates, this one among them perhaps.
    ///
    /// - Parameters:
    ///   - end: until when that is so, in seconds from now; nil to say nothing of it.
    ///   - extra: other certificates to send along.
    fileprivate func says(
        of certificates: [TestCertificate], end: Int? = 3600, status: Int32 = OCSP_RESPONSE_STATUS_SUCCESSFUL,
        digest: OpaquePointer? = EVP_sha1(), extra: [TestCertificate] = []
    ) throws -> [UInt8] {
        let basic = try #require(OCSP_BASICRESP_new())
        defer { OCSP_BASICRESP_free(basic) }
        let start = X509_gmtime_adj(nil, -7200)
        let end = end.map { X509_gmtime_adj(nil, $0) }
        defer { for time in [start, end] { ASN1_TIME_free(time ?? nil) } }
        for certificate in certificates {
            let id = OCSP_cert_to_id(digest, certificate.x509, x509)
            defer { OCSP_CERTID_free(id) }
            try #require(
                OCSP_basic_add1_status(basic, id, V_OCSP_CERTSTATUS_GOOD, 0, nil, start, end ?? nil) != nil)
        }
        for certificate in extra { try #require(OCSP_basic_add1_cert(basic, certificate.x509) == 1) }
        try #require(OCSP_basic_sign(basic, x509, key, EVP_sha256(), nil, 0) == 1)
        let response = OCSP_response_create(status, status == OCSP_RESPONSE_STATUS_SUCCESSFUL ? basic : nil)
        defer { OCSP_RESPONSE_free(response) }
        var bytes = [UInt8](repeating: 0, count: Int(i2d_OCSP_RESPONSE(response, nil)))
        _ = bytes.withUnsafeMutableBufferPointer { bytes in
            var place = bytes.baseAddress
            return i2d_OCSP_RESPONSE(response, &place)
        }
        return bytes
    }

    fileprivate func material(with response: [UInt8]?) -> TLSMaterial.Certificate {
        var material = material()
        material.ocspResponse = response
        return material
    }
}

extension SessionPair {
    /// What was stapled to the certificate that the client was shown.
    fileprivate var stapled: [UInt8]? {
        var bytes: UnsafePointer<UInt8>?
        let count = SSL_ctrl(client, SSL_CTRL_GET_TLSEXT_STATUS_REQ_OCSP_RESP, 0, &bytes)
        return count < 0 ? nil : Array(UnsafeBufferPointer(start: bytes, count: count))
    }
}

@Suite struct OCSPResponseTests {
    private let authority: TestCertificate

    init() throws { authority = try TestCertificate(commonName: "authority", isAuthority: true) }

    private func listener(_ certificates: TLSMaterial.Certificate...) throws -> ListenerTLS {
        try ListenerTLS(
            TLSMaterial(certificates: certificates, ticketKeys: [[UInt8](repeating: 7, count: 80)]),
            TLSSettings(certificateFiles: ["a.pem"]))
    }

    /// The handshake of a client that asks.
    private func ask(_ listener: ListenerTLS, _ client: TestClient, _ name: String? = nil) throws -> SessionPair {
        let session = client.session(name)
        SSL_ctrl(session, SSL_CTRL_SET_TLSEXT_STATUS_REQ_TYPE, Int(TLSEXT_STATUSTYPE_ocsp), nil)
        let pair = try SessionPair(client: session, listener: listener.makeSession())
        #expect(pair.isDone && ERR_peek_error() == 0)
        return pair
    }

    private func failure(_ bytes: [UInt8], of certificate: TestCertificate) throws -> String {
        // Whoever is given such a response is none the worse for it.
        let listener = try listener(certificate.material(with: bytes))
        #expect(try ask(listener, TestClient()).stapled == nil)
        let failure = #expect(throws: TLSFailure.self) {
            try OCSPResponse.check(bytes, of: certificate.pem, name: "a.ocsp")
        }
        #expect(ERR_peek_error() == 0)
        return try #require(failure).message
    }

    @Test(
        "a client that asks gets the response about the certificate that it is shown, if there is one",
        arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
    func stapled(version: Int32) throws {
        let (one, two) = (["DNS:a.example"], ["DNS:b.example"])
        let first = try TestCertificate(one, issuer: authority)
        let ecdsa = try TestCertificate(two, commonName: "ecdsa", issuer: authority)
        let rsa = try TestCertificate(two, commonName: "rsa", issuer: authority, keyKind: .rsa)
        let without = try TestCertificate(["DNS:c.example"], issuer: authority)
        let answers = try [first, ecdsa, rsa].map { try authority.says(of: [$0]) }
        let listener = try listener(
            first.material(with: answers[0]), ecdsa.material(with: answers[1]), rsa.material(with: answers[2]),
            without.material())
        let client = try TestClient(version: version)
        #expect(try ask(listener, client).stapled == answers[0])
        #expect(try ask(listener, client, "a.example").stapled == answers[0])
        #expect(try ask(listener, client, "c.example").stapled == nil)
        #expect(try client.meet(listener, "a.example").stapled == nil)
        for (signature, answer) in [("ECDSA+SHA256", answers[1]), ("RSA-PSS+SHA256", answers[2])] {
            let client = try TestClient(version: version) { ctx in
                _ = signature.withCString {
                    SSL_CTX_ctrl(ctx, SSL_CTRL_SET_SIGALGS_LIST, 0, UnsafeMutableRawPointer(mutating: $0))
                }
            }
            #expect(try ask(listener, client, "b.example").stapled == answer)
        }
    }

    @Test(
        "a response is good until nextUpdate, and without that for ever", arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
    func nextUpdate(version: Int32) throws {
        let certificate = try TestCertificate(["DNS:a.example"], issuer: authority)
        let client = try TestClient(version: version)
        for end in [3600, nil] {
            let bytes = try authority.says(of: [certificate], end: end)
            try OCSPResponse.check(bytes, of: certificate.pem, name: "a.ocsp")
            #expect(try ask(listener(certificate.material(with: bytes)), client).stapled == bytes)
        }
        // It was good when it was read.
        let before = time(nil)
        let response = try OCSPResponse(
            authority.says(of: [certificate]), of: Certificate(owning: try #require(X509_dup(certificate.x509))),
            name: "a.ocsp")
        #expect(response.isCurrent(at: before + 3599))
        #expect(!response.isCurrent(at: time(nil) + 3600))
        #expect(
            try failure(authority.says(of: [certificate], end: -1), of: certificate)
                == "a.ocsp: its nextUpdate has passed")
    }

    @Test("of what it says about several certificates, and by whichever digest, that about ours counts")
    func several() throws {
        let certificates = try (0..<3).map { _ in try TestCertificate(["DNS:a.example"], issuer: authority) }
        for digest in [EVP_sha1(), EVP_sha256()] {
            let bytes = try authority.says(of: certificates, digest: digest)
            for certificate in certificates { try OCSPResponse.check(bytes, of: certificate.pem, name: "a.ocsp") }
        }
    }

    @Test("what is no such response is not stapled, and it is said why")
    func refused() throws {
        let certificate = try TestCertificate(["DNS:a.example"], issuer: authority)
        let good = try authority.says(of: [certificate])
        let none = "a.ocsp: it is no OCSP response (DER)"
        #expect(try failure([], of: certificate) == none)
        #expect(try failure(Array("nothing\n".utf8), of: certificate) == none)
        #expect(try failure(good.dropLast(), of: certificate) == none)
        #expect(try failure(good + [0], of: certificate) == none)
        #expect(try failure(certificate.pem, of: certificate) == none)
        #expect(
            try failure(authority.says(of: [], status: OCSP_RESPONSE_STATUS_TRYLATER), of: certificate)
                == "a.ocsp: it says trylater")
        // SUCCESSFUL, and nothing else.
        #expect(try failure([0x30, 3, 0x0a, 1, 0], of: certificate).hasPrefix("a.ocsp: nothing can be read in it"))
        let other = try TestCertificate(["DNS:a.example"], issuer: authority)
        #expect(try failure(good, of: other) == "a.ocsp: it is about another certificate")
        #expect(
            try failure(authority.says(of: []), of: certificate) == "a.ocsp: it is about another certificate")
        // The same number, given out by somebody else.
        let stranger = try TestCertificate(commonName: "stranger", isAuthority: true)
        let namesake = try TestCertificate(["DNS:a.example"], issuer: stranger)
        X509_set_serialNumber(namesake.x509, X509_get_serialNumber(certificate.x509))
        #expect(
            try failure(stranger.says(of: [namesake]), of: certificate) == "a.ocsp: it is about another certificate")
    }

    @Test("the largest one is taken by clients", arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
    func large(version: Int32) throws {
        let certificate = try TestCertificate(["DNS:a.example"], issuer: authority)
        let few = try authority.says(of: [certificate])
        let more = try authority.says(of: [certificate], extra: [authority])
        let count = (Limits.ocspResponseBytesMax - few.count) / (more.count - few.count + 4)
        let bytes = try authority.says(of: [certificate], extra: [TestCertificate](repeating: authority, count: count))
        #expect((Limits.ocspResponseBytesMax - 500...Limits.ocspResponseBytesMax).contains(bytes.count))
        #expect(
            try ask(listener(certificate.material(with: bytes)), TestClient(version: version)).stapled == bytes)
    }

    @Test("noise never traps", arguments: 1...4 as ClosedRange<UInt64>)
    func noise(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let certificate = try TestCertificate(["DNS:a.example"], issuer: authority)
        let good = try authority.says(of: [certificate])
        for _ in 0..<500 {
            var bytes = good
            for _ in 0..<3 {
                bytes[.random(in: 0..<bytes.count, using: &generator)] = .random(in: 0...255, using: &generator)
            }
            _ = try? OCSPResponse.check(bytes, of: certificate.pem, name: "a.ocsp")
            #expect(ERR_peek_error() == 0)
        }
    }
}
