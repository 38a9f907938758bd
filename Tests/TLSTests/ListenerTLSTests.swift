import COpenSSL
import Config
import Testing

@testable import TLS

@Suite struct ListenerTLSTests {
    private static func settings(_ change: (inout TLSSettings) -> Void = { _ in }) -> TLSSettings {
        var settings = TLSSettings(certificateFiles: ["a.pem"])
        change(&settings)
        return settings
    }

    private static func listener(
        _ certificates: [TestCertificate], _ change: (inout TLSSettings) -> Void = { _ in },
        authorities: [TestCertificate]? = nil, ticketKeys: [[UInt8]] = []
    ) throws -> ListenerTLS {
        try ListenerTLS(
            TLSMaterial(
                certificates: certificates.map { $0.material() }, clientAuthorities: authorities?.flatMap(\.pem),
                ticketKeys: ticketKeys), settings(change))
    }

    private static func ticketKey(_ byte: UInt8) -> [UInt8] { [UInt8](repeating: byte, count: 80) }

    /// Why a listener cannot be made.
    private static func failure(
        _ material: TLSMaterial, _ change: (inout TLSSettings) -> Void = { _ in }
    ) throws -> String {
        let failure = #expect(throws: TLSFailure.self) { _ = try ListenerTLS(material, settings(change)) }
        return try #require(failure).message
    }

    // MARK: - Certificates by name

    @Test(
        "a client is shown the certificate for its name, in any case, with one label for a star, else the first one",
        arguments: [
            (nil, "first"), ("first.example", "first"), ("second.example", "second"), ("SECOND.Example", "second"),
            ("second.example.", "second"), ("a.wild.example", "wild"), ("b.A.wild.example", "first"),
            ("wild.example", "first"), (".wild.example", "first"), ("special.wild.example", "second"),
            ("common.example", "common.example"), ("other.example", "first"), ("ignored.example", "first"),
            ("*.wild.example", "wild"), ("h\u{f6}r.example", "first"), (String(repeating: "a", count: 255), "first"),
        ] as [(String?, String)], [TLS1_2_VERSION, TLS1_3_VERSION])
    func name(_ expected: (name: String?, certificate: String), version: Int32) throws {
        let listener = try Self.listener([
            TestCertificate(["DNS:first.example"], commonName: "first"),
            TestCertificate(["DNS:Second.example", "DNS:special.wild.example"], commonName: "second"),
            TestCertificate(["DNS:*.wild.example"], commonName: "wild"),
            TestCertificate(commonName: "common.example"),
            // The name is taken.
            TestCertificate(["DNS:second.example"], commonName: "late"),
            // With alternative names the common one means nothing.
            TestCertificate(["DNS:there.example"], commonName: "ignored.example"),
        ])
        let pair = try TestClient(version: version).meet(listener, expected.name)
        #expect(pair.isDone)
        #expect(pair.shownName == expected.certificate)
    }

    @Test("of certificates for the same names and different keys a client is shown one that it can verify")
    func kinds() throws {
        let names = ["DNS:a.example", "DNS:b.example"]
        let listener = try Self.listener([
            TestCertificate(["DNS:other.example"], commonName: "other"),
            TestCertificate(names, commonName: "rsa", keyKind: .rsa),
            TestCertificate(names.reversed(), commonName: "ecdsa"),
        ])
        for (kind, name) in [("ECDSA", "ecdsa"), ("RSA", "rsa")] {
            let client = try TestClient(version: TLS1_2_VERSION) {
                _ = SSL_CTX_set_cipher_list($0, "ECDHE-\(kind)-AES128-GCM-SHA256")
            }
            #expect(try client.meet(listener, "b.example").shownName == name)
        }
    }

    @Test("the chain goes with the certificate")
    func chain() throws {
        let root = try TestCertificate(commonName: "root", isAuthority: true)
        let middle = try TestCertificate(commonName: "middle", issuer: root, isAuthority: true)
        let leaf = try TestCertificate(["DNS:a.example"], commonName: "a", issuer: middle)
        let other = try TestCertificate(["DNS:b.example"], commonName: "b")
        let client = try TestClient {
            X509_STORE_add_cert(SSL_CTX_get_cert_store($0), root.x509)
            SSL_CTX_set_verify($0, SSL_VERIFY_PEER, nil)
        }
        #expect(try client.meet(Self.listener([leaf])).isDone)
        #expect(try client.meet(Self.listener([other, leaf]), "a.example").isDone)
        let alone = TLSMaterial.Certificate(name: "a.pem", chain: Array(leaf.pem.prefix(leaf.pem.count / 2)), key: [])
        // Half of it is the certificate or nearly so: no key, or not all of a certificate.
        #expect(
            try Self.failure(TLSMaterial(certificates: [alone])).contains(/^a.pem: (there is no private key|no cert)/))
    }

    // MARK: - Files that are not right

    @Test("what is wrong with a certificate or a key is said with its file, and nobody is asked for a passphrase")
    func broken() throws {
        let good = try TestCertificate(["DNS:a.example"])
        let other = try TestCertificate(["DNS:b.example"])
        let rsa = try TestCertificate(["DNS:c.example"], keyKind: .rsa)
        func failure(_ chain: [UInt8], _ key: [UInt8]) throws -> String {
            try Self.failure(
                TLSMaterial(certificates: [
                    good.material("good.pem"), TLSMaterial.Certificate(name: "x.pem", chain: chain, key: key),
                ]))
        }
        #expect(
            try failure(good.pem, other.keyPEM)
                == "x.pem: the key does not belong to the certificate: key values mismatch")
        // OpenSSL has two ways to say this.
        #expect(
            try failure(good.pem, rsa.keyPEM).wholeMatch(
                of: /x.pem: the key does not belong to the certificate: .*key type.*/) != nil)
        #expect(try failure([], good.keyPEM) == "x.pem: there is no certificate in it (PEM)")
        #expect(try failure(good.keyPEM, good.keyPEM) == "x.pem: there is no certificate in it (PEM)")
        #expect(try failure(good.pem, good.pem) == "x.pem: there is no private key in it (PEM)")
        #expect(try failure(good.pem, []) == "x.pem: there is no private key in it (PEM)")
        let cut = Array(good.keyPEM.prefix(good.keyPEM.count / 2))
        #expect(try failure(good.pem, cut).hasPrefix("x.pem: no private key can be read: "))
        var broken = good.pem
        broken.replaceSubrange(100..<104, with: Array("!!!!".utf8))
        #expect(try failure(broken, good.keyPEM) == "x.pem: no certificate can be read: bad base64 decode")
        // The second of a chain.
        #expect(try failure(other.pem + broken, other.keyPEM) == "x.pem: no certificate can be read: bad base64 decode")
        for key in [good.encryptedKeyPEM, good.oldEncryptedKeyPEM] {
            try #require(!key.isEmpty)
            #expect(
                try failure(good.pem, key)
                    == "x.pem: the private key is encrypted, and there is nobody to ask for its passphrase")
        }
        #expect(try Self.failure(TLSMaterial(certificates: [])) == "there is no certificate")
        #expect(ERR_peek_error() == 0)
    }

    @Test("noise in place of a certificate or a key ends in a failure", arguments: 1...4 as ClosedRange<UInt64>)
    func noise(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let good = try TestCertificate(["DNS:a.example"])
        for _ in 0..<100 {
            var (chain, key) = (good.pem, good.keyPEM)
            for _ in 0..<3 {
                chain[.random(in: 0..<chain.count, using: &generator)] = .random(in: 0...255, using: &generator)
                key[.random(in: 0..<key.count, using: &generator)] = .random(in: 0...255, using: &generator)
            }
            // Some changes change nothing, such as one of a letter that is not used.
            _ = try? ListenerTLS(
                TLSMaterial(certificates: [.init(name: "x.pem", chain: chain, key: key)]), Self.settings())
            #expect(ERR_peek_error() == 0)
        }
    }

    // MARK: - What is agreed on

    @Test("only what is good today is agreed on by default")
    func ciphers() throws {
        let certificate = try TestCertificate(["DNS:a.example"])
        let listener = try Self.listener([certificate])
        let ssl = try #require(listener.makeSession())
        defer { SSL_free(ssl) }
        let names = Self.cipherNames(ssl)
        #expect(names.count == 9)
        #expect(
            names.allSatisfy {
                $0.hasPrefix("TLS_") || $0.hasPrefix("ECDHE-") && ($0.contains("GCM") || $0.contains("CHACHA20"))
            })
        #expect(try TestClient(version: TLS1_2_VERSION).meet(listener).isDone)
        #expect(try TestClient(version: TLS1_3_VERSION).meet(listener).isDone)
        for version in [TLS1_VERSION, TLS1_1_VERSION] {
            let old = try TestClient(version: version) { SSL_CTX_set_security_level($0, 0) }
            #expect(try !old.meet(listener).isDone)
        }
        let strict = try Self.listener([certificate]) { $0.versionMin = .tls13 }
        #expect(try !TestClient(version: TLS1_2_VERSION).meet(strict).isDone)
        #expect(try TestClient(version: TLS1_3_VERSION).meet(strict).isDone)
    }

    private static func cipherNames(_ ssl: OpaquePointer) -> [String] {
        guard let stack = SSL_get_ciphers(ssl) else { return [] }
        return (0..<tp_ciphers_count(stack)).map { String(cString: SSL_CIPHER_get_name(tp_cipher(stack, $0))) }
    }

    @Test("ciphers are those that were asked for, and unknown ones a failure")
    func ownCiphers() throws {
        let certificate = try TestCertificate(["DNS:a.example"])
        func names(_ ciphers: String) throws -> [String] {
            let listener = try Self.listener([certificate]) { $0.ciphers = ciphers }
            let ssl = try #require(listener.makeSession())
            defer { SSL_free(ssl) }
            return Self.cipherNames(ssl)
        }
        let suites = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
        #expect(try names("ECDHE-ECDSA-AES256-GCM-SHA384") == suites + ["ECDHE-ECDSA-AES256-GCM-SHA384"])
        #expect(try names("TLS_AES_128_GCM_SHA256").filter { $0.hasPrefix("TLS_") } == ["TLS_AES_128_GCM_SHA256"])
        #expect(
            try names("ECDHE-ECDSA-AES256-GCM-SHA384:TLS_AES_128_GCM_SHA256,ECDHE-ECDSA-AES128-GCM-SHA256")
                == [
                    "TLS_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256",
                ])
        let material = TLSMaterial(certificates: [certificate.material()])
        #expect(try Self.failure(material) { $0.ciphers = "NONSENSE" } == "--ssl-ciphers: NONSENSE: no cipher match")
        #expect(try Self.failure(material) { $0.ciphers = "" } == "--ssl-ciphers: : no cipher match")
        #expect(
            try Self.failure(material) { $0.ciphers = "TLS_AES_128_GCM_SHA256:TLS_NONSENSE" }
                == "--ssl-ciphers: TLS_NONSENSE: no cipher match")
    }

    @Test("a client without instructions for AES gets ChaCha20, and one with them AES")
    func chacha() throws {
        let listener = try Self.listener([TestCertificate(["DNS:a.example"])])
        let (aes, chacha) = ("TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256")
        for (suites, chosen) in [("\(chacha):\(aes)", chacha), ("\(aes):\(chacha)", aes)] {
            let client = try TestClient(version: TLS1_3_VERSION) { _ = SSL_CTX_set_ciphersuites($0, suites) }
            let pair = try client.meet(listener)
            #expect(String(cString: SSL_CIPHER_get_name(SSL_get_current_cipher(pair.client))) == chosen)
        }
    }

    @Test("the protocol is the first of ours that a client knows, and a client that knows none is told so")
    func protocols() throws {
        let certificates = [try TestCertificate(["DNS:a.example"]), try TestCertificate(["DNS:b.example"])]
        let listener = try Self.listener(certificates) { $0.alpn = ["h2", "http/1.1"] }
        for name in ["a.example", "b.example"] {
            let pair = try TestClient(protocols: ["http/1.1", "h2"]).meet(listener, name)
            #expect(pair.isDone && pair.protocolChosen == "h2")
            #expect(try TestClient(protocols: ["x", "http/1.1"]).meet(listener, name).protocolChosen == "http/1.1")
            #expect(try TestClient().meet(listener, name).isDone)
            #expect(
                try TestClient(protocols: ["h3"]).meet(listener, name).clientError
                    == "tlsv1 alert no application protocol")
        }
        let indifferent = try TestClient(protocols: ["h3"]).meet(Self.listener(certificates))
        #expect(indifferent.isDone && indifferent.protocolChosen == nil)
        let material = TLSMaterial(certificates: [certificates[0].material()])
        for name in ["", String(repeating: "a", count: 256)] {
            #expect(try Self.failure(material) { $0.alpn = [name] }.hasPrefix("ALPN: "))
        }
    }

    @Test("renegotiation is refused")
    func renegotiation() throws {
        let pair = try TestClient(version: TLS1_2_VERSION).meet(Self.listener([TestCertificate(["DNS:a.example"])]))
        #expect(pair.isDone)
        SSL_clear_options(pair.client, tp_SSL_OP_NO_RENEGOTIATION)
        #expect(SSL_renegotiate(pair.client) == 1)
        _ = SSL_do_handshake(pair.client)
        var byte: UInt8 = 0
        #expect(SSL_read(pair.listener, &byte, 1) < 0)
        ERR_clear_error()
        #expect(SSL_do_handshake(pair.client) < 1)
        #expect(TLSFailure.fromQueue().message.contains("no renegotiation"))
    }

    // MARK: - Clients' certificates

    @Test(
        "clients' certificates are not asked for, asked for, or needed",
        arguments: CertificateRequirement.allCases, [TLS1_2_VERSION, TLS1_3_VERSION])
    func clientCertificates(requirement: CertificateRequirement, version: Int32) throws {
        let authority = try TestCertificate(commonName: "authority", isAuthority: true)
        let certificates = [try TestCertificate(["DNS:a.example"]), try TestCertificate(["DNS:b.example"])]
        let listener = try Self.listener(
            certificates, { $0.clientCertificates = requirement }, authorities: [authority])
        let good = try TestCertificate(commonName: "good", issuer: authority)
        let foreign = try TestCertificate(commonName: "foreign", isAuthority: true)
        let bad = try TestCertificate(commonName: "bad", issuer: foreign)
        let expired = try TestCertificate(commonName: "expired", issuer: authority, days: -30 ... -1)
        for name in ["a.example", "b.example"] {
            func meet(_ certificate: TestCertificate?) throws -> SessionPair {
                try TestClient(certificate: certificate, version: version).meet(listener, name)
            }
            let known = try meet(good)
            #expect(known.isDone)
            #expect((SSL_get0_peer_certificate(known.listener) != nil) == (requirement != .none))
            #expect(try meet(nil).isDone == (requirement != .required))
            let unknown = try meet(bad)
            #expect(unknown.isDone == (requirement == .none))
            let old = try meet(expired)
            #expect(old.isDone == (requirement == .none))
            if requirement != .none {
                #expect(unknown.listenerError == "unable to get local issuer certificate")
                #expect(old.listenerError == "certificate has expired")
                #expect(old.clientError?.hasSuffix("alert certificate expired") == true)
            }
        }
    }

    @Test("a client cannot choose a cipher with which nobody is asked for a certificate, when one is required")
    func anonymousCiphers() throws {
        let authority = try TestCertificate(commonName: "authority", isAuthority: true)
        let client = try TestClient(version: TLS1_2_VERSION) {
            _ = SSL_CTX_set_cipher_list($0, "AECDH-AES128-SHA:@SECLEVEL=0")
        }
        for requirement in CertificateRequirement.allCases {
            let listener = try Self.listener(
                [TestCertificate(["DNS:a.example"])],
                {
                    $0.clientCertificates = requirement
                    $0.ciphers = "ALL:@SECLEVEL=0"
                }, authorities: [authority])
            #expect(try client.meet(listener).isDone == (requirement == .none))
        }
    }

    @Test("clients learn the names of those who may have signed their certificates")
    func authorityNames() throws {
        let authorities = try ["one", "two"].map { try TestCertificate(commonName: $0, isAuthority: true) }
        let listener = try Self.listener(
            [TestCertificate(["DNS:a.example"])], { $0.clientCertificates = .optional }, authorities: authorities)
        let pair = try TestClient().meet(listener)
        #expect(pair.isDone)
        #expect(tp_names_count(SSL_get0_peer_CA_list(pair.client)) == 2)
    }

    @Test(
        "without authorities no client's certificate can be asked for",
        arguments: [CertificateRequirement.optional, .required])
    func noAuthorities(requirement: CertificateRequirement) throws {
        var material = TLSMaterial(certificates: [try TestCertificate(["DNS:a.example"]).material()])
        #expect(
            try Self.failure(material) { $0.clientCertificates = requirement }
                == "clients' certificates cannot be verified: nobody is named who signs them")
        material.clientAuthorities = Array("nonsense".utf8)
        #expect(
            try Self.failure(material) {
                $0.clientCertificates = requirement
                $0.clientAuthoritiesFile = "ca.pem"
            } == "ca.pem: there is no certificate in it (PEM)")
    }

    // MARK: - Session tickets

    @Test(
        "a session goes on in another worker with the same ticket keys, after rotation, until its key is gone",
        arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
    func resumption(version: Int32) throws {
        let certificates = [
            try TestCertificate(["DNS:a.example"], commonName: "a"),
            try TestCertificate(["DNS:b.example"], commonName: "b"),
        ]
        let (one, two, three) = (Self.ticketKey(1), Self.ticketKey(2), Self.ticketKey(3))
        func listener(_ keys: [[UInt8]]) throws -> ListenerTLS {
            try Self.listener(certificates, ticketKeys: keys)
        }
        let client = try TestClient(version: version)
        for name in ["a.example", "b.example"] {
            let first = try client.meet(listener([one]), name)
            #expect(first.isDone && !first.isResumed)
            let session = try KeptSession(of: first)
            let same = try client.meet(listener([one]), name, resuming: session.pointer)
            #expect(same.isDone && same.isResumed)
            #expect(serverName(of: same.listener) == name)
            #expect(try !client.meet(listener([three]), name, resuming: session.pointer).isResumed)
            // Rotated: the old key still opens, and the ticket is replaced by one under the new key.
            let rotated = try client.meet(listener([two, one]), name, resuming: session.pointer)
            #expect(rotated.isDone && rotated.isResumed)
            let renewed = try KeptSession(of: rotated)
            let later = try client.meet(listener([three, two]), name, resuming: renewed.pointer)
            #expect(later.isDone && later.isResumed)
            let gone = try client.meet(listener([three, two]), name, resuming: session.pointer)
            #expect(gone.isDone && !gone.isResumed)
        }
    }

    @Test(
        "new ticket keys are for all certificates, and for connections that began before; wrong ones change nothing",
        arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
    func ticketKeysRenewed(version: Int32) throws {
        let listener = try Self.listener(
            [TestCertificate(["DNS:a.example"]), TestCertificate(["DNS:b.example"])], ticketKeys: [Self.ticketKey(1)])
        let client = try TestClient(version: version)
        for name in ["a.example", "b.example"] {
            try listener.renew(ticketKeys: [Self.ticketKey(1)])
            let old = try KeptSession(of: client.meet(listener, name))
            let begun = listener.makeSession()
            try listener.renew(ticketKeys: [Self.ticketKey(2), Self.ticketKey(1)])
            let new = try KeptSession(of: SessionPair(client: client.session(name), listener: begun))
            #expect(try client.meet(listener, name, resuming: old.pointer).isResumed)
            try listener.renew(ticketKeys: [Self.ticketKey(3), Self.ticketKey(2)])
            #expect(throws: TLSFailure.self) { try listener.renew(ticketKeys: [[1, 2, 3]]) }
            #expect(try !client.meet(listener, name, resuming: old.pointer).isResumed)
            #expect(try client.meet(listener, name, resuming: new.pointer).isResumed)
        }
    }

    @Test("without ticket keys there are no tickets", arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
    func noTickets(version: Int32) throws {
        let listener = try Self.listener([TestCertificate(["DNS:a.example"])])
        let client = try TestClient(version: version)
        let pair = try client.meet(listener)
        #expect(pair.isDone)
        let session = try KeptSession(of: pair)
        #expect(SSL_SESSION_has_ticket(session.pointer) == 0)
        #expect(try !client.meet(listener, resuming: session.pointer).isResumed)
        #expect(
            try Self.failure(
                TLSMaterial(certificates: [TestCertificate(["DNS:a.example"]).material()], ticketKeys: [[1, 2, 3]]))
                == "a ticket key has 80 bytes")
    }

    @Test("a ticket that was changed on its way is no ticket", arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
    func forgedTicket(version: Int32) throws {
        let certificate = try TestCertificate(["DNS:a.example"])
        // The same name, other keys.
        var other = Self.ticketKey(1)
        other.replaceSubrange(16..., with: [UInt8](repeating: 9, count: 64))
        let client = try TestClient(version: version)
        let session = try KeptSession(of: client.meet(Self.listener([certificate], ticketKeys: [Self.ticketKey(1)])))
        let pair = try client.meet(Self.listener([certificate], ticketKeys: [other]), resuming: session.pointer)
        #expect(pair.isDone && !pair.isResumed)
    }

    @Test(
        "a session is not resumed under other authorities, another requirement, or beyond its client's certificate",
        arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
    func sessionContext(version: Int32) throws {
        let certificate = try TestCertificate(["DNS:a.example"])
        let authority = try TestCertificate(commonName: "one", isAuthority: true)
        let other = try TestCertificate(commonName: "two", isAuthority: true)
        func listener(_ requirement: CertificateRequirement, _ authorities: [TestCertificate]) throws -> ListenerTLS {
            try Self.listener(
                [certificate], { $0.clientCertificates = requirement }, authorities: authorities,
                ticketKeys: [Self.ticketKey(1)])
        }
        let client = try TestClient(certificate: TestCertificate(commonName: "c", issuer: authority), version: version)
        let first = try client.meet(listener(.required, [authority]))
        #expect(first.isDone)
        let session = try KeptSession(of: first)
        let again = try client.meet(listener(.required, [authority]), resuming: session.pointer)
        #expect(again.isDone && again.isResumed)
        #expect(SSL_get0_peer_certificate(again.listener) != nil)
        let changed = try client.meet(listener(.required, [authority, other]), resuming: session.pointer)
        #expect(changed.isDone && !changed.isResumed)
        let refused = try client.meet(listener(.required, [other]), resuming: session.pointer)
        #expect(!refused.isDone)
        // Who was not asked for a certificate has none to show later.
        let free = try client.meet(listener(.none, [authority]))
        #expect(free.isDone)
        let anonymous = try KeptSession(of: free)
        #expect(try !client.meet(listener(.required, [authority]), resuming: anonymous.pointer).isResumed)
    }
}
