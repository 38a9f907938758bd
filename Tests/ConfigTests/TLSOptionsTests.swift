import Addressing
import Config
import Testing

@Suite("Options of TLS towards clients") struct TLSOptionsTests {
    private func read(
        _ commandLine: [OptionName: [String]], _ environment: [String: String] = [:]
    ) throws(OptionError) -> Settings {
        try SettingsReader(commandLine: commandLine, environment: environment)
            .settings(router: RouterSpec(arguments: ["r"], text: "r"), script: "r")
    }

    @Test("certificates and keys are paired in order, and a certificate may have its key with it")
    func pairs() throws {
        let tls = try read([.sslCertfile: ["a", "b", "c"], .sslKeyfile: ["ka", "kb"]]).tls
        #expect(tls?.certificateFiles == ["a", "b", "c"] && tls?.keyFiles == ["ka", "kb"])
        #expect(tls?.clientCertificates == CertificateRequirement.none && tls?.versionMin == .tls12)
        #expect(tls?.alpn == [] && tls?.ciphers == nil && tls?.clientAuthoritiesFile == nil)
        let fromEnvironment = try read([:], ["TPROXY_SSL_CERTFILE": "a,b", "TPROXY_SSL_KEYFILE": "k"]).tls
        #expect(fromEnvironment?.certificateFiles == ["a", "b"] && fromEnvironment?.keyFiles == ["k"])
        #expect(try read([:]).tls == nil)
    }

    @Test("what is so anyway may be said without a certificate")
    func defaults() throws {
        #expect(try read([.sslCertReqs: ["0"], .sslMinVersion: ["1.2"]]).tls == nil)
    }

    @Test(
        "what does not go together is refused by name",
        arguments: [
            (
                [.sslCertfile: ["a"], .sslKeyfile: ["k", "l"]],
                "--ssl-keyfile 'l': there are 2 keys, and 1 of --ssl-certfile"
            ),
            ([.sslCertfile: ["a"], .sslCertReqs: ["1"]], "--ssl-cert-reqs '1': needs --ssl-ca-certs"),
            ([.sslCertfile: ["a"], .sslCertReqs: ["2"]], "--ssl-cert-reqs '2': needs --ssl-ca-certs"),
            (
                [.sslCertfile: ["a"], .sslCACerts: ["ca"]],
                "--ssl-ca-certs needs --ssl-cert-reqs: 2 requires a certificate, 1 checks it, 0 asks for none"
            ),
            ([.sslCertfile: ["a"], .sslCertReqs: ["3"]], "--ssl-cert-reqs '3': expected 0, 1 or 2"),
            ([.sslCertfile: ["a"], .sslCertReqs: ["01"]], "--ssl-cert-reqs '01': expected 0, 1 or 2"),
            ([.sslCertfile: ["a"], .sslMinVersion: ["1.1"]], "--ssl-min-version '1.1': expected 1.2, 1.3"),
            (
                [.sslCertfile: ["a"], .sslCiphers: ["a b"]],
                "--ssl-ciphers 'a b': expected OpenSSL's names of ciphers with colons between"
            ),
            (
                [.sslCertfile: ["a"], .sslALPN: ["h2,"]],
                "--ssl-alpn 'h2,': expected up to 16 different names of protocols with commas between: h2,http/1.1"
            ),
            (
                [.sslCertfile: ["a"], .sslALPN: ["h2,h2"]],
                "--ssl-alpn 'h2,h2': expected up to 16 different names of protocols with commas between: h2,http/1.1"
            ),
            ([.bind: ["80", "tls://443"]], "-b/--bind 'tls://443': tls:// needs --ssl-certfile"),
            ([.sslCertfile: ["a"], .bind: ["443", "tls://443"]], "-b/--bind 'tls://443': it is given twice"),
        ] as [([OptionName: [String]], String)])
    func refused(options: [OptionName: [String]], message: String) {
        let error = #expect(throws: OptionError.self) { try read(options) }
        #expect(error?.description == message)
    }

    @Test("authorities are taken with 0, 1 and 2")
    func authorities() throws {
        for requirement in CertificateRequirement.allCases {
            let tls = try read([
                .sslCertfile: ["a"], .sslCACerts: ["ca"], .sslCertReqs: [String(requirement.rawValue)],
            ]).tls
            #expect(tls?.clientAuthoritiesFile == "ca" && tls?.clientCertificates == requirement)
        }
    }

    @Test("every listener speaks TLS, unless one is said to: then only those that are")
    func listeners() throws {
        let all = try read([.sslCertfile: ["a"], .bind: ["1", "unix:/x", "fd://5"]])
        // The fourth one was opened by a service manager.
        #expect((0...3).allSatisfy { all.speaksTLS(listener: $0) })
        let some = try read([
            .sslCertfile: ["a"],
            .bind: ["tls://127.0.0.1:0", "127.0.0.1:0", "tls://unix:/x", "tls://fd://5", "tls://[::1]:7", "tls://8"],
        ])
        #expect((0...6).map { some.speaksTLS(listener: $0) } == [true, false, true, true, true, true, false])
        #expect(some.binds.map(\.description).prefix(3) == ["127.0.0.1:0", "127.0.0.1:0", "unix:/x"])
        #expect(!(try read([.bind: ["1"]]).speaksTLS(listener: 0)))
        let standard = try read([.sslCertfile: ["a"]])
        #expect(standard.speaksTLS(listener: 0) && standard.binds == [.standard])
    }

    @Test("keys that are wiped are gone")
    func wiped() {
        var material = TLSMaterial(
            certificates: [.init(name: "x", chain: [1, 2], key: [3, 4])], ticketKeys: [[5, 6], [7]])
        material.wipe()
        #expect(material == TLSMaterial(certificates: []))
        var bytes: [UInt8] = [1, 2, 3]
        bytes.wipe()
        #expect(bytes == [0, 0, 0])
    }
}
