import COpenSSL
import Config
import RouterProtocol
import Testing

@testable import TLS

@Suite struct SessionFactsTests {
    private let authority: TestCertificate

    init() throws { authority = try TestCertificate(commonName: "authority", isAuthority: true) }

    /// What is told of a client with this certificate.
    private func told(_ certificate: TestCertificate) throws -> TLSFacts.Certificate? {
        var settings = TLSSettings(certificateFiles: ["a.pem"])
        settings.clientCertificates = .optional
        let listener = try ListenerTLS(
            TLSMaterial(
                certificates: [TestCertificate(["DNS:a.example"]).material()],
                clientAuthorities: authority.pem), settings)
        let pair = try TestClient(certificate: certificate).meet(listener)
        #expect(pair.isDone)
        return facts(of: pair.listener).clientCertificate
    }

    @Test("a client's certificate is told with its names and its fingerprint")
    func clientCertificate() throws {
        let made = try TestCertificate(
            [
                "DNS:c.example", "IP:192.0.2.1", "IP:2001:db8::1", "email:c@b.example", "URI:spiffe://b.example/c",
                "RID:1.2.3.4",
            ], commonName: "c", issuer: authority)
        let told = try #require(try told(made))
        #expect(told.subject == "CN=c")
        #expect(told.issuer == "CN=authority")
        #expect(
            told.names == [
                "DNS:c.example", "IP:192.0.2.1", "IP:2001:db8::1", "email:c@b.example", "URI:spiffe://b.example/c",
            ])
        var digest = [UInt8](repeating: 0, count: 32)
        try #require(X509_digest(made.x509, EVP_sha256(), &digest, nil) == 1)
        #expect(hex(told.fingerprint) == digest)
        #expect(told.fingerprint == told.fingerprint.lowercased())
    }

    @Test("names in a certificate are printable and whole, or not told")
    func strangeNames() throws {
        // Names with a NUL and with a control character, whose beginnings look good.
        for bad in [Array("a.example\0.evil".utf8), Array("a.example\n".utf8), Array("b\u{e4}r.example".utf8), []] {
            let made = try TestCertificate(rawName: bad, issuer: authority)
            #expect(try #require(try told(made)).names == [])
        }
        let good = try TestCertificate(rawName: Array("a.example".utf8), issuer: authority)
        #expect(try #require(try told(good)).names == ["DNS:a.example"])
        let common = try TestCertificate(
            commonName: "a,b=\"c\"+\u{1}\n\u{e4}\0x", issuer: authority)
        #expect(try #require(try told(common)).subject == #"CN=a\,b=\"c\"\+\01\0A\C3\A4\00x"#)
        let many = try TestCertificate(
            (0..<100).map { "DNS:h\($0).example" }, commonName: String(repeating: "\u{e4}", count: 64),
            issuer: authority)
        let told = try #require(try told(many))
        #expect(told.names.count == TLSFacts.alternativeNamesMax)
        #expect(told.subject.utf8.count == 3 + 64 * 6)
    }

    @Test("a listener is not found by what stands before a NUL in a certificate")
    func nulInCertificate() throws {
        let listener = try ListenerTLS(
            TLSMaterial(certificates: [
                TestCertificate(["DNS:first.example"], commonName: "first").material(),
                TestCertificate(rawName: Array("a.example\0.evil".utf8), commonName: "evil").material(),
            ]), TLSSettings(certificateFiles: ["a.pem"]))
        #expect(try TestClient().meet(listener, "a.example").shownName == "first")
    }

    /// What a listener makes of a ClientHello with this name, which no client of OpenSSL's would send.
    private static func greet(_ name: [UInt8]) throws -> (isRefused: Bool, name: String?) {
        let listener = try ListenerTLS(
            TLSMaterial(certificates: [TestCertificate(["DNS:a.example"]).material()]),
            TLSSettings(certificateFiles: ["a.pem"]))
        // One of the same length is replaced; the client's Finished never comes.
        let client = try TestClient()
        let placeholder = String(repeating: "q", count: name.count)
        // With the kind and the length before it: a short one may be elsewhere by chance.
        let entry = [0, 0, UInt8(name.count)] + Array(placeholder.utf8)
        let ssl = try #require(client.session(placeholder))
        defer { SSL_free(ssl) }
        let (input, output) = (BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()))
        SSL_set_bio(ssl, input, output)
        SSL_do_handshake(ssl)
        var hello = [UInt8](repeating: 0, count: 4096)
        let count = BIO_read(output, &hello, 4096)
        hello.removeLast(hello.count - Int(max(0, count)))
        let place = try #require(hello.indices.first { hello[$0...].starts(with: entry) }) + 3
        hello.replaceSubrange(place..<place + name.count, with: name)
        let other = try #require(listener.makeSession())
        defer { SSL_free(other) }
        let (helloInput, answer) = (BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()))
        BIO_write(helloInput, hello, Int32(hello.count))
        SSL_set_bio(other, helloInput, answer)
        ERR_clear_error()
        let result = SSL_do_handshake(other)
        let isRefused = SSL_get_error(other, result) == SSL_ERROR_SSL
        ERR_clear_error()
        return (isRefused, serverName(of: other))
    }

    @Test("a client's name is lower-case ASCII, or none, or the handshake is refused")
    func clientNames() throws {
        #expect(try Self.greet(Array("b.example".utf8)) == (false, "b.example"))
        #expect(try Self.greet(Array("B.Example".utf8)) == (false, "b.example"))
        #expect(try Self.greet(Array("b.example\0.evil".utf8)) == (true, nil))
        #expect(try Self.greet(Array("\0".utf8)) == (true, nil))
        #expect(try Self.greet([0xff, 0xfe, 0x61]) == (false, nil))
        #expect(try Self.greet(Array("b\u{e4}r".utf8)) == (false, nil))
        #expect(try Self.greet(Array("b r".utf8)) == (false, nil))
        #expect(try Self.greet(Array("b\nr".utf8)) == (false, nil))
        #expect(try Self.greet([UInt8](repeating: 0x61, count: 255)).name?.count == 255)
    }

    @Test("names of random bytes are refused, none, or whole", arguments: 1...4 as ClosedRange<UInt64>)
    func randomNames(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<50 {
            let name = (0..<Int.random(in: 1...40, using: &generator)).map { _ in
                Bool.random(using: &generator) ? UInt8.random(in: 0...255, using: &generator) : 0x61
            }
            let told = try Self.greet(name)
            guard let text = told.name else { continue }
            #expect(!told.isRefused && name.allSatisfy { (0x21...0x7e).contains($0) })
            #expect(text.utf8.count == name.count || name.last == 0x2e && text.utf8.count == name.count - 1)
        }
    }
}
