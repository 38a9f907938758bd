import Addressing
import COpenSSL
import Config
import Glibc
import RouterProtocol
import SystemPackage
import Testing

@testable import TLS

extension RemoteTLS {
    /// The handshake with a listener that is known by this address.
    fileprivate func meet(_ listener: ListenerTLS, as endpoint: String) throws -> SessionPair {
        try SessionPair(
            client: makeSession(to: try #require(Endpoint(endpoint))), listener: listener.makeSession())
    }
}

@Suite struct RemoteTLSTests {
    // MARK: - Verification

    @Test(
        "a certificate is verified against the remote's name or address, and refused in OpenSSL's words",
        arguments: [
            (["DNS:a.example"], "a.example:443", nil),
            (["DNS:a.example"], "A.EXAMPLE:443", nil),
            (["DNS:a.example"], "a.example.:443", nil),
            (["DNS:*.a.example"], "b.a.example:443", nil),
            (["DNS:b.example"], "a.example:443", "hostname mismatch"),
            (["DNS:*.a.example"], "c.b.a.example:443", "hostname mismatch"),
            (["DNS:*.a.example"], "a.example:443", "hostname mismatch"),
            // A star within a label, and a subject in place of a name.
            (["DNS:w*.example"], "www.example:443", "hostname mismatch"),
            ([], "common.example:443", "hostname mismatch"),
            (["IP:127.0.0.1"], "127.0.0.1:443", nil),
            (["IP:127.0.0.1"], "[::ffff:127.0.0.1]:443", nil),
            (["IP:2001:db8::1"], "[2001:db8::1]:443", nil),
            (["IP:127.0.0.1"], "127.0.0.2:443", "IP address mismatch"),
            (["IP:2001:db8::1"], "[2001:db8::2]:443", "IP address mismatch"),
            // Digits in a name are no address.
            (["DNS:127.0.0.1"], "127.0.0.1:443", "IP address mismatch"),
        ] as [([String], String, String?)])
    func verification(_ expected: (names: [String], remote: String, failure: String?)) throws {
        let authority = try Authority()
        let listener = try listener(authority.sign(expected.names, commonName: "common.example"))
        let pair = try remote(authority.arguments()).meet(listener, as: expected.remote)
        #expect(pair.clientError == expected.failure)
        #expect(pair.isDone == (expected.failure == nil))
        let careless = try remote(authority.arguments { $0.verifies = false }).meet(listener, as: expected.remote)
        #expect(careless.isDone)
    }

    @Test("expired, not yet valid, self-signed, of an unknown authority: each is said in OpenSSL's words")
    func refused() throws {
        let authority = try Authority()
        let other = try Authority("other")
        let name = ["DNS:a.example"]
        let middle = try TestCertificate(commonName: "middle", issuer: authority.root, isAuthority: true)
        let cases: [(TestCertificate, String)] = [
            (try authority.sign(name, days: -30 ... -1), "certificate has expired"),
            (try authority.sign(name, days: 1...30), "certificate is not yet valid"),
            (try TestCertificate(name, commonName: "a.example"), "self-signed certificate"),
            (try other.sign(name), "unable to get local issuer certificate"),
        ]
        for (certificate, words) in cases {
            let pair = try remote(authority.arguments()).meet(listener(certificate), as: "a.example:443")
            #expect(pair.clientError == words)
            #expect(!pair.isDone)
            #expect(
                try remote(authority.arguments { $0.verifies = false }).meet(listener(certificate), as: "a.example:443")
                    .isDone)
            // The system knows none of them.
            let bySystem = try remote(TLSArguments()).meet(listener(certificate), as: "a.example:443")
            #expect(!bySystem.isDone)
        }
        let chained = try TestCertificate(name, issuer: middle)
        #expect(try remote(authority.arguments()).meet(listener(chained), as: "a.example:443").isDone)
    }

    @Test("the system's authorities are loaded once for everybody")
    func systemAuthorities() throws {
        let authority = try Authority()
        let system = SystemAuthorities()
        let early = try RemoteTLS(TLSArguments(), authorities: system)
        X509_STORE_add_cert(try system.store().x509, authority.root.x509)
        let listener = try listener(authority.sign(["DNS:a.example"]))
        #expect(try early.meet(listener, as: "a.example:443").isDone)
        #expect(try RemoteTLS(TLSArguments(), authorities: system).meet(listener, as: "a.example:443").isDone)
        // Who names authorities trusts nobody else.
        let other = try Authority("other")
        #expect(
            try !RemoteTLS(other.arguments(), authorities: system).meet(listener, as: "a.example:443").isDone)
    }

    @Test("the remote's name is sent, an address is not, and server_hostname stands in for both")
    func serverNames() throws {
        let authority = try Authority()
        let listener = try listener(authority.sign(["DNS:a.example", "IP:127.0.0.1"]))
        func sent(_ endpoint: String, instead: String? = nil) throws -> (name: String?, error: String?) {
            let pair = try remote(authority.arguments { $0.serverName = instead }).meet(listener, as: endpoint)
            return (serverName(of: pair.listener), pair.clientError)
        }
        #expect(try sent("a.example:443") == ("a.example", nil))
        #expect(try sent("a.example.:443") == ("a.example", nil))
        #expect(try sent("127.0.0.1:443") == (nil, nil))
        #expect(try sent("b.example:443", instead: "a.example") == ("a.example", nil))
        #expect(try sent("127.0.0.1:443", instead: "a.example") == ("a.example", nil))
        #expect(try sent("unix:/tmp/socket", instead: "a.example") == ("a.example", nil))
        #expect(try sent("a.example:443", instead: "b.example") == ("b.example", "hostname mismatch"))
        #expect(try sent("a.example:443", instead: "127.0.0.1") == (nil, nil))
        #expect(try sent("a.example:443", instead: "127.0.0.2") == (nil, "IP address mismatch"))
        let careless = try remote(authority.arguments { $0.verifies = false })
        let pair = try careless.meet(listener, as: "a.example:443")
        #expect(serverName(of: pair.listener) == "a.example")
    }

    @Test("a Unix socket has no name: it needs server_hostname, or no verification")
    func unixSocket() throws {
        let authority = try Authority()
        let strict = try remote(authority.arguments())
        #expect(
            throws: TLSFailure(
                "unix:/tmp/s has no name to verify: give server_hostname, or cert_reqs 0 to go without verification")
        ) { _ = try strict.makeSession(to: .unix("/tmp/s")) }
        let careless = try remote(authority.arguments { $0.verifies = false })
        let pair = try careless.meet(listener(authority.sign(["DNS:a.example"])), as: "unix:/tmp/s")
        #expect(pair.isDone && serverName(of: pair.listener) == nil)
    }

    @Test(
        "what is no name is none for server_hostname either",
        arguments: ["", ".", ".example", "a b", "a\0.example", "h\u{f6}r", String(repeating: "a", count: 256)])
    func noName(name: String) throws {
        var arguments = TLSArguments()
        arguments.serverName = name
        let failure = #expect(throws: TLSFailure.self) { _ = try remote(arguments) }
        #expect(failure?.message.hasPrefix("server_hostname: ") == true)
    }

    // MARK: - The other arguments

    @Test("the remote is shown our certificate")
    func clientCertificate() throws {
        let authority = try Authority()
        let listener = try listener(authority.sign(["DNS:a.example"]), authorities: [authority.root]) {
            $0.clientCertificates = .required
        }
        let ours = try authority.sign(["DNS:client.example"], commonName: "client")
        let (chain, key) = (try MemoryFile(ours.pem), try MemoryFile(ours.keyPEM))
        let both = try MemoryFile(ours.keyPEM + ours.pem)
        #expect(try !remote(authority.arguments()).meet(listener, as: "a.example:443").isDone)
        for arguments in [
            authority.arguments {
                $0.certificateFile = chain.path
                $0.keyFile = key.path
            },
            authority.arguments { $0.certificateFile = both.path },
        ] {
            let pair = try remote(arguments).meet(listener, as: "a.example:443")
            #expect(pair.isDone)
            #expect(facts(of: pair.listener).clientCertificate?.subject == "CN=client")
        }
    }

    @Test(
        "ssl_version takes Python's numbers",
        arguments: [
            (nil, [TLS1_2_VERSION, TLS1_3_VERSION]), (2, [TLS1_2_VERSION, TLS1_3_VERSION]), (3, [TLS1_VERSION]),
            (4, [TLS1_1_VERSION]), (5, [TLS1_2_VERSION]),
        ] as [(Int?, [Int32])])
    func versions(_ expected: (number: Int?, versions: [Int32])) throws {
        let authority = try Authority()
        let certificate = try authority.sign(["DNS:a.example"])
        let remote = try remote(authority.arguments { $0.version = expected.number })
        for version in [TLS1_VERSION, TLS1_1_VERSION, TLS1_2_VERSION, TLS1_3_VERSION] {
            let old = try TLSContext(TLS_server_method())
            SSL_CTX_set_security_level(old.ctx, 0)
            try #require(tp_SSL_CTX_set_min_proto_version(old.ctx, version) == 1)
            try #require(tp_SSL_CTX_set_max_proto_version(old.ctx, version) == 1)
            try #require(SSL_CTX_use_certificate(old.ctx, certificate.x509) == 1)
            try #require(SSL_CTX_use_PrivateKey(old.ctx, certificate.key) == 1)
            let session = SSL_new(old.ctx)
            SSL_set_accept_state(session)
            let pair = try SessionPair(
                client: remote.makeSession(to: try #require(Endpoint("a.example:443"))), listener: session)
            #expect(pair.isDone == expected.versions.contains(version), "\(version) \(pair.clientError ?? "")")
        }
    }

    @Test(
        "whoever verifies takes no cipher without a certificate and none that hides nothing, though it was asked for",
        arguments: ["AECDH-AES128-SHA", "ECDHE-ECDSA-NULL-SHA"], [3, 4, 5])
    func ciphersOfNobody(cipher: String, version: Int) throws {
        let authority = try Authority()
        let certificate = try authority.sign(["DNS:a.example"])
        let server = try TLSContext(TLS_server_method())
        SSL_CTX_set_security_level(server.ctx, 0)
        try #require(tp_SSL_CTX_set_min_proto_version(server.ctx, TLS1_VERSION) == 1)
        try #require(SSL_CTX_set_cipher_list(server.ctx, cipher) == 1)
        try #require(SSL_CTX_use_certificate(server.ctx, certificate.x509) == 1)
        try #require(SSL_CTX_use_PrivateKey(server.ctx, certificate.key) == 1)
        for verifies in [true, false] {
            let session = SSL_new(server.ctx)
            SSL_set_accept_state(session)
            let remote = try remote(
                authority.arguments {
                    $0.verifies = verifies
                    $0.version = version
                    $0.ciphers = "ALL:eNULL:@SECLEVEL=0"
                })
            let endpoint = try #require(Endpoint("a.example:443"))
            let pair = try SessionPair(client: remote.makeSession(to: endpoint), listener: session)
            #expect(pair.isDone == !verifies)
        }
    }

    @Test("ciphers and protocols are those that were asked for")
    func ciphersAndProtocols() throws {
        let authority = try Authority()
        let listener = try listener(authority.sign(["DNS:a.example"])) { $0.alpn = ["h2", "http/1.1"] }
        let arguments = authority.arguments {
            $0.version = 5
            $0.ciphers = "ECDHE-ECDSA-CHACHA20-POLY1305"
            $0.alpn = [Array("x".utf8), Array("http/1.1".utf8)]
        }
        let pair = try remote(arguments).meet(listener, as: "a.example:443")
        #expect(pair.isDone && pair.protocolChosen == "http/1.1")
        #expect(
            facts(of: pair.listener)
                == TLSFacts(
                    version: "TLSv1.2", cipher: "ECDHE-ECDSA-CHACHA20-POLY1305", sni: "a.example", alpn: "http/1.1",
                    clientCertificate: nil))
        let none = authority.arguments { $0.alpn = [Array("x".utf8)] }
        #expect(
            try remote(none).meet(listener, as: "a.example:443").clientError == "tlsv1 alert no application protocol")
    }

    @Test("arguments that cannot be met are said, with their file")
    func broken() throws {
        let authority = try Authority()
        let certificate = try MemoryFile(authority.root.pem)
        let key = try MemoryFile(authority.sign(["DNS:a.example"]).keyPEM)
        let encrypted = try MemoryFile(authority.root.encryptedKeyPEM)
        let large = try MemoryFile(authority.root.pem + [UInt8](repeating: 10, count: Limits.remoteFileBytesMax))
        var ends: [Int32] = [0, 0]
        try #require(pipe(&ends) == 0)
        defer { for end in ends { close(end) } }
        let fifo = "/proc/self/fd/\(ends[0])"
        func failure(_ change: (inout TLSArguments) -> Void) throws -> String {
            try #require(#expect(throws: TLSFailure.self) { _ = try remote(authority.arguments(change)) }).message
        }
        #expect(
            try failure {
                $0.certificateFile = certificate.path
                $0.keyFile = key.path
            } == "\(certificate.path): the key does not belong to the certificate: key values mismatch")
        #expect(
            try failure {
                $0.certificateFile = certificate.path
                $0.keyFile = encrypted.path
            } == "\(encrypted.path): the private key is encrypted, and there is nobody to ask for its passphrase")
        #expect(
            try failure { $0.certificateFile = certificate.path }
                == "\(certificate.path): there is no private key in it (PEM)")
        #expect(try failure { $0.keyFile = key.path } == "\(key.path): a keyfile needs a certfile")
        #expect(try failure { $0.authoritiesFile = "/nowhere/ca.pem" } == "/nowhere/ca.pem: No such file or directory")
        #expect(
            try failure { $0.authoritiesFile = key.path } == "\(key.path): there is no certificate in it (PEM)")
        #expect(try failure { $0.authoritiesFile = fifo } == "\(fifo): not a regular file")
        #expect(try failure { $0.authoritiesFile = "/dev/zero" } == "/dev/zero: not a regular file")
        #expect(try failure { $0.authoritiesFile = large.path } == "\(large.path): File too large")
        #expect(try failure { $0.version = 1 } == "ssl_version: 1 is none of 2, 3, 4, 5")
        #expect(try failure { $0.ciphers = "NONSENSE" } == "ciphers: NONSENSE: no cipher match")
        // They leave nothing to verify.
        #expect(try failure { $0.ciphers = "aNULL" } == "ciphers: aNULL: no cipher match")
        #expect(try failure { $0.alpn = [[]] } == "ALPN: a protocol's name has 1 to 255 bytes")
        #expect(ERR_peek_error() == 0)
    }

    @Test("nothing of the files for our certificate stays in memory")
    func cleared() async {
        await #expect(processExitsWith: .success) {
            let certificate = try MemoryFile(TestCertificate(["DNS:a.example"]).pem)
            let key = try SecretFile("/tmp/tproxy-test-\(getpid()).key")
            var arguments = TLSArguments()
            arguments.certificateFile = certificate.path
            arguments.keyFile = key.path
            #expect(throws: TLSFailure("\(key.path): there is no private key in it (PEM)")) {
                _ = try remote(arguments)
            }
            #expect(try key.copiesInMemory() == 0)
            (arguments.certificateFile, arguments.keyFile) = (key.path, nil)
            #expect(throws: TLSFailure("\(key.path): there is no certificate in it (PEM)")) {
                _ = try remote(arguments)
            }
            #expect(try key.copiesInMemory() == 0)
        }
    }

    // MARK: - The cache

    @Test("what asks for the same is made once, until it is forgotten or long unused")
    func cache() throws {
        let cache = RemoteTLSCache()
        func arguments(_ number: Int) -> TLSArguments {
            var arguments = TLSArguments()
            arguments.verifies = false
            arguments.serverName = "host\(number).example"
            return arguments
        }
        let first = try cache.find(arguments(0))
        let second = try cache.find(arguments(1))
        #expect(first !== second)
        #expect(try cache.find(arguments(0)) === first)
        for number in 2...Limits.remoteArgumentsMax {
            _ = try cache.find(arguments(number))
            #expect(try cache.find(arguments(0)) === first)
        }
        // One too many: the second was used least recently.
        #expect(try cache.find(arguments(1)) !== second)
        #expect(try cache.find(arguments(0)) === first)
        cache.forget()
        #expect(try cache.find(arguments(0)) !== first)
    }

    @Test("what could not be made is tried again")
    func failuresAreNotKept() throws {
        let cache = RemoteTLSCache()
        var arguments = TLSArguments()
        let authority = try Authority()
        let path = "/tmp/tproxy-test-\(getpid())-\(UInt64.random(in: 0 ... .max)).pem"
        arguments.authoritiesFile = path
        #expect(throws: TLSFailure("\(path): No such file or directory", errno: .noSuchFileOrDirectory)) {
            _ = try cache.find(arguments)
        }
        try #require(symlink(authority.file.path, path) == 0)
        defer { unlink(path) }
        _ = try cache.find(arguments)
    }
}
