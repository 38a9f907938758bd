import Addressing
import CLinux
import COpenSSL
import Config
import Glibc
import RouterProtocol
import Testing

@testable import TLS

@Suite struct RemoteSessionsTests {
    private static func listener(_ certificate: TestCertificate, version: Int32 = TLS1_3_VERSION) throws -> ListenerTLS
    {
        var settings = TLSSettings(certificateFiles: ["a.pem"])
        if version == TLS1_3_VERSION { settings.versionMin = .tls13 }
        return try ListenerTLS(
            TLSMaterial(
                certificates: [certificate.material()],
                ticketKeys: [[UInt8](repeating: 7, count: TLSMaterial.ticketKeyBytes)]), settings)
    }

    /// Does not verify.
    private static func remote(version: Int? = nil) throws -> RemoteTLS {
        var arguments = TLSArguments()
        arguments.verifies = false
        arguments.version = version
        return try RemoteTLS(arguments, authorities: SystemAuthorities())
    }

    private static func meet(_ remote: RemoteTLS, _ listener: ListenerTLS, _ endpoint: Endpoint) throws -> SessionPair {
        try SessionPair(client: remote.makeSession(to: endpoint), listener: listener.makeSession())
    }

    private static func endpoint(_ number: Int) -> Endpoint { .name("host\(number).example", port: 443) }

    @Test("a session is resumed with the same remote, and with no other")
    func resumption() throws {
        let remote = try Self.remote()
        let listener = try Self.listener(TestCertificate(["DNS:a.example"]))
        let first = try Self.meet(remote, listener, Self.endpoint(1))
        #expect(first.isDone && !first.isResumed)
        #expect(try !Self.meet(remote, listener, Self.endpoint(2)).isResumed)
        #expect(try !Self.meet(remote, listener, .name("host1.example", port: 444)).isResumed)
        let again = try Self.meet(remote, listener, Self.endpoint(1))
        #expect(again.isDone && again.isResumed)
        #expect(try !Self.meet(Self.remote(), listener, Self.endpoint(1)).isResumed)
    }

    @Test("sessions of TLS 1.3 are used once, and each use brings another one")
    func usedOnce() throws {
        let remote = try Self.remote()
        let certificate = try TestCertificate(["DNS:a.example"])
        let listener = try Self.listener(certificate)
        let first = try Self.meet(remote, listener, Self.endpoint(1))
        #expect(first.isDone)
        let count = remote.sessionsCount
        #expect((1...2).contains(count))
        // Connections that never come to a handshake use them up.
        for left in (0..<count).reversed() {
            SSL_free(try remote.makeSession(to: Self.endpoint(1)))
            #expect(remote.sessionsCount == left)
        }
        #expect(try !Self.meet(remote, listener, Self.endpoint(1)).isResumed)
        for _ in 0..<10 { #expect(try Self.meet(remote, listener, Self.endpoint(1)).isResumed) }
        #expect(remote.sessionsCount <= Limits.sessionsOfRemoteMax)
    }

    @Test("sessions of TLS 1.2 are used as long as they are good")
    func usedAgain() throws {
        let remote = try Self.remote(version: 5)
        let listener = try Self.listener(TestCertificate(["DNS:a.example"]), version: TLS1_2_VERSION)
        #expect(try !Self.meet(remote, listener, Self.endpoint(1)).isResumed)
        for _ in 0..<5 {
            let pair = try Self.meet(remote, listener, Self.endpoint(1))
            #expect(pair.isDone && pair.isResumed)
            #expect(remote.sessionsCount == 1)
        }
    }

    @Test("a session that the remote does not know any more costs nothing but a full handshake")
    func unknown() throws {
        let remote = try Self.remote()
        let certificate = try TestCertificate(["DNS:a.example"])
        #expect(try Self.meet(remote, Self.listener(certificate), Self.endpoint(1)).isDone)
        let stranger = try ListenerTLS(
            TLSMaterial(
                certificates: [certificate.material()],
                ticketKeys: [[UInt8](repeating: 8, count: TLSMaterial.ticketKeyBytes)]),
            TLSSettings(certificateFiles: ["a.pem"]))
        let pair = try Self.meet(remote, stranger, Self.endpoint(1))
        #expect(pair.isDone && !pair.isResumed)
    }

    @Test("an expired session is not used", arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
    func expired(version: Int32) throws {
        let remote = try Self.remote(version: version == TLS1_2_VERSION ? 5 : nil)
        let listener = try Self.listener(TestCertificate(["DNS:a.example"]), version: version)
        do {
            let pair = try Self.meet(remote, listener, Self.endpoint(1))
            #expect(pair.isDone)
        }
        // It is offered, and aged while it is in there.
        while remote.sessionsCount > 0 {
            let before = remote.sessionsCount
            let ssl = try remote.makeSession(to: Self.endpoint(1))
            let session = try #require(SSL_get_session(ssl))
            SSL_SESSION_set_time(session, 1)
            SSL_free(ssl)
            if version == TLS1_2_VERSION {
                let next = try remote.makeSession(to: Self.endpoint(1))
                #expect(SSL_get_session(next) == nil)
                SSL_free(next)
                #expect(remote.sessionsCount == 0)
            } else {
                #expect(remote.sessionsCount == before - 1)
            }
        }
    }

    @Test(
        "a session is used as long as the certificate that was verified is good, however often it was renewed",
        arguments: [5, nil], [true, false])
    func certificateExpires(version: Int?, verifies: Bool) throws {
        let authority = try Authority()
        let remote = try TLSTests.remote(
            authority.arguments {
                $0.version = version
                $0.verifies = verifies
            })
        let listener = try Self.listener(
            authority.sign(["DNS:host1.example"]), version: version == 5 ? TLS1_2_VERSION : TLS1_3_VERSION)
        let first = try Self.meet(remote, listener, Self.endpoint(1))
        #expect(first.isDone)
        let again = try Self.meet(remote, listener, Self.endpoint(1))
        #expect(again.isDone && again.isResumed)
        // It is shown once, and all sessions since then have it in common.
        let certificate = try #require(SSL_get0_peer_certificate(again.client))
        X509_gmtime_adj(X509_getm_notAfter(certificate), -1)
        let later = try Self.meet(remote, listener, Self.endpoint(1))
        #expect(later.isDone && later.isResumed == !verifies)
        // What came of that is kept anew.
        #expect(try Self.meet(remote, listener, Self.endpoint(1)).isResumed)
    }

    @Test("sessions are bounded: for one remote, and for all")
    func bounded() throws {
        let remote = try Self.remote()
        let listener = try Self.listener(TestCertificate(["DNS:a.example"]))
        // At the same time, so that none is used for another.
        let sessions = try (0..<20).map { _ in try remote.makeSession(to: Self.endpoint(0)) }
        for session in sessions {
            #expect(try SessionPair(client: session, listener: listener.makeSession()).isDone)
        }
        #expect(remote.sessionsCount == Limits.sessionsOfRemoteMax)
        for number in 1...Limits.remoteSessionsMax + 10 {
            #expect(try Self.meet(remote, listener, Self.endpoint(number)).isDone)
            #expect(remote.sessionsCount <= Limits.remoteSessionsMax)
        }
        #expect(remote.sessionsCount > Limits.remoteSessionsMax / 2)
        // The oldest are gone, the newest are there.
        #expect(try !Self.meet(remote, listener, Self.endpoint(0)).isResumed)
        #expect(try Self.meet(remote, listener, Self.endpoint(Limits.remoteSessionsMax + 10)).isResumed)
    }

    @Test("a connection may outlive what it was made with")
    func outlives() throws {
        weak var remote: RemoteTLS?
        weak var listener: ListenerTLS?
        let sessions = try {
            let made = (
                try Self.remote(), try Self.listener(TestCertificate(["DNS:a.example"], commonName: "a"))
            )
            (remote, listener) = made
            return (try made.0.makeSession(to: Self.endpoint(1)), try #require(made.1.makeSession()))
        }()
        #expect(remote == nil && listener == nil)
        let pair = try SessionPair(client: sessions.0, listener: sessions.1)
        #expect(pair.isDone && pair.shownName == "a")
    }

    @Test("two thousand connections on either side leave nothing behind")
    func noGrowth() async throws {
        // In a process of its own: nobody else takes memory there.
        await #expect(processExitsWith: .success) {
            try OpenSSLMemory.count()
            let certificates = [
                try TestCertificate(["DNS:a.example"]), try TestCertificate(["DNS:host1.example"]),
            ]
            func round(_ count: Int) throws {
                for version in [5, nil] {
                    let remote = try RemoteSessionsTests.remote(version: version)
                    var settings = TLSSettings(certificateFiles: ["a.pem"])
                    settings.alpn = ["h2"]
                    let listener = try ListenerTLS(
                        TLSMaterial(
                            certificates: certificates.map { $0.material() },
                            ticketKeys: [[UInt8](repeating: 7, count: TLSMaterial.ticketKeyBytes)]), settings)
                    for number in 0..<count {
                        let pair = try RemoteSessionsTests.meet(
                            remote, listener, RemoteSessionsTests.endpoint(number % 5))
                        try #require(pair.isDone && pair.isResumed == (number >= 5))
                        _ = facts(of: pair.listener)
                    }
                }
            }
            // The allocator takes a while until it has pieces of all sizes to give again.
            for _ in 0..<50 { try round(20) }
            let before = (pieces: OpenSSLMemory.pieces, bytes: mallinfo2().uordblks)
            try #require(before.pieces > 1000)
            for _ in 0..<50 { try round(20) }
            #expect(OpenSSLMemory.pieces == before.pieces)
            // What is ours has no count. The smallest piece of each connection would be more, whatever the threads of the
            // testing library take meanwhile.
            let growth = Int(mallinfo2().uordblks) - Int(before.bytes)
            #expect(growth < 2000 * 24, "\(growth)")
        }
    }
}

/// Counts what OpenSSL has allocated.
private enum OpenSSLMemory {
    /// Pieces of memory that are not freed.
    nonisolated(unsafe) private(set) static var pieces = 0

    /// To be called before OpenSSL does anything, in a process with one thread that does.
    static func count() throws {
        let result = CRYPTO_set_mem_functions(
            { size, _, _ in
                OpenSSLMemory.pieces += 1
                return malloc(size)
            },
            { old, size, _, _ in
                if old == nil { OpenSSLMemory.pieces += 1 }
                return realloc(old, size)
            },
            { old, _, _ in
                if old != nil { OpenSSLMemory.pieces -= 1 }
                free(old)
            })
        try #require(result == 1)
    }
}
