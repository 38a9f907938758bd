import Addressing
import RouterProtocol
import Testing

@Suite struct TLSArgumentsTests {
    /// The verdict for these `ssl_args`, beside `ssl`.
    private func read(_ arguments: String) throws(ProtocolError) -> RemoteVerdict? {
        guard case .remote(let verdict) = try decode(#"{"remote":"a:1","ssl":true,"ssl_args":"# + arguments + "}")
        else { return nil }
        return verdict
    }

    private func refused(_ arguments: String) -> String {
        fault(#"{"remote":"a:1","ssl":true,"ssl_args":"# + arguments + "}")
    }

    @Test("TLS to a remote verifies unless it is told not to")
    func defaults() throws {
        guard case .remote(let plain) = try decode(#"{"remote":"a:1"}"#),
            case .remote(let alone) = try decode(#"{"remote":"a:1","ssl_args":{"cert_reqs":0,"server_side":true}}"#),
            case .remote(let tls) = try decode(#"{"remote":"a:1","ssl":true}"#)
        else {
            Issue.record("no remote")
            return
        }
        #expect(plain.tls == nil && alone.tls == nil && alone.ignoredTLSArguments.isEmpty)
        #expect(tls.tls == TLSArguments() && tls.tls?.verifies == true)
        #expect(try read("null")?.tls == TLSArguments())
        #expect(try read(#"{"cert_reqs":0}"#)?.tls?.verifies == false)
        #expect(try read(#"{"cert_reqs":1.0}"#)?.tls?.verifies == true)
        #expect(try read(#"{"cert_reqs":2}"#)?.tls == TLSArguments())
    }

    @Test("all arguments are read, and verdicts with equal ones are equal")
    func all() throws {
        let text =
            #"{"keyfile":"/k","certfile":"c","cert_reqs":0,"ca_certs":"é","ssl_version":3,"ciphers":"ALL:!x","#
            + #""server_hostname":"192.0.2.1","alpn":["h2","\u008aÿ"]}"#
        var expected = TLSArguments()
        expected.keyFile = "/k"
        expected.certificateFile = "c"
        expected.verifies = false
        expected.authoritiesFile = "é"
        expected.version = 3
        expected.ciphers = "ALL:!x"
        expected.serverName = "192.0.2.1"
        expected.alpn = [bytes("h2"), [0x8a, 0xff]]
        #expect(try read(text)?.tls == expected)
        #expect(try Set([read(text)?.tls, read(text)?.tls, expected]).count == 1)
        #expect(try read(#"{"server_hostname":"[::1]"}"#)?.tls?.serverName == "::1")
        #expect(try read(#"{"alpn":[]}"#)?.tls == TLSArguments())
    }

    @Test("what is about Python's own socket is accepted and named, once for each")
    func ignored() throws {
        let verdict = try read(#"{"suppress_ragged_eofs":0,"server_side":[],"do_handshake_on_connect":null}"#)
        #expect(verdict?.tls == TLSArguments())
        #expect(verdict?.ignoredTLSArguments == ["suppress_ragged_eofs", "server_side"])
        #expect(refused(#"{"server_side":0,"server_side":1}"#) == "duplicate_key ssl_args.server_side")
    }

    @Test(
        "what is wrong is named",
        arguments: [
            ("[]", "wrong_type ssl_args"), ("true", "wrong_type ssl_args"), (#""certfile""#, "wrong_type ssl_args"),
            (#"{"x":null}"#, "unknown_key ssl_args.x"), (#"{"KEYFILE":"k"}"#, "unknown_key ssl_args.KEYFILE"),
            (#"{"ca_data":"-----BEGIN"}"#, "unknown_key ssl_args.ca_data"),
            (#"{"keyfile":"k"}"#, "wrong_value ssl_args.keyfile"),
            (#"{"keyfile":"k","certfile":null}"#, "wrong_value ssl_args.keyfile"),
            (#"{"certfile":1}"#, "wrong_type ssl_args.certfile"),
            (#"{"certfile":""}"#, "wrong_value ssl_args.certfile"),
            (#"{"ca_certs":"a\u0000"}"#, "wrong_value ssl_args.ca_certs"),
            (#"{"ca_certs":"\ud800"}"#, "wrong_value ssl_args.ca_certs"),
            (#"{"cert_reqs":3}"#, "wrong_value ssl_args.cert_reqs"),
            (#"{"cert_reqs":-1}"#, "wrong_value ssl_args.cert_reqs"),
            (#"{"cert_reqs":false}"#, "wrong_type ssl_args.cert_reqs"),
            (#"{"ssl_version":1}"#, "wrong_value ssl_args.ssl_version"),
            (#"{"ssl_version":6}"#, "wrong_value ssl_args.ssl_version"),
            (#"{"ssl_version":4.5}"#, "wrong_value ssl_args.ssl_version"),
            (#"{"ciphers":""}"#, "wrong_value ssl_args.ciphers"), (#"{"ciphers":[]}"#, "wrong_type ssl_args.ciphers"),
            (#"{"server_hostname":""}"#, "wrong_value ssl_args.server_hostname"),
            (#"{"server_hostname":".a"}"#, "wrong_value ssl_args.server_hostname"),
            (#"{"server_hostname":"a b"}"#, "wrong_value ssl_args.server_hostname"),
            (#"{"server_hostname":"a\u0000b"}"#, "wrong_value ssl_args.server_hostname"),
            (#"{"server_hostname":"é"}"#, "wrong_value ssl_args.server_hostname"),
            (#"{"alpn":"h2"}"#, "wrong_type ssl_args.alpn"), (#"{"alpn":[1]}"#, "wrong_type ssl_args.alpn"),
            (#"{"alpn":[["h2"]]}"#, "wrong_type ssl_args.alpn"), (#"{"alpn":[""]}"#, "wrong_value ssl_args.alpn"),
            (#"{"alpn":["€"]}"#, "not_bytes ssl_args.alpn"),
        ])
    func wrong(arguments: String, expected: String) { #expect(refused(arguments) == expected) }

    @Test("names and lists may be as long as they may be, and no longer")
    func bounds() throws {
        let path = String(repeating: "p", count: VerdictLimits.pathBytesMax)
        #expect(try read("{\"certfile\":\"\(path)\"}")?.tls?.certificateFile == path)
        #expect(refused("{\"certfile\":\"\(path)x\"}") == "wrong_value ssl_args.certfile")
        let ciphers = String(repeating: "c", count: TLSArguments.ciphersBytesMax)
        #expect(try read("{\"ciphers\":\"\(ciphers)\"}")?.tls?.ciphers == ciphers)
        #expect(refused("{\"ciphers\":\"\(ciphers)c\"}") == "wrong_value ssl_args.ciphers")
        let name = String(repeating: "n", count: 255)
        #expect(try read("{\"server_hostname\":\"\(name)\"}")?.tls?.serverName == name)
        #expect(refused("{\"server_hostname\":\"\(name)n\"}") == "wrong_value ssl_args.server_hostname")
        let names = [String](repeating: "\"\(name)\"", count: TLSArguments.protocolsMax)
        #expect(try read("{\"alpn\":[\(names.joined(separator: ","))]}")?.tls?.alpn.count == TLSArguments.protocolsMax)
        #expect(refused("{\"alpn\":[\(names.joined(separator: ",")),\"x\"]}") == "wrong_value ssl_args.alpn")
        #expect(refused("{\"alpn\":[\"\(name)n\"]}") == "wrong_value ssl_args.alpn")
    }

    @Test("a Unix socket has no name of its own to verify")
    func unix() throws {
        #expect(fault(#"{"remote":"unix:/s","ssl":true}"#) == "wrong_value ssl")
        #expect(fault(#"{"remotes":["a:1","unix:/s"],"ssl":true,"ssl_args":{"ca_certs":"c"}}"#) == "wrong_value ssl")
        for fine in [
            #"{"remote":"unix:/s","ssl":true,"ssl_args":{"server_hostname":"a"}}"#,
            #"{"remote":"unix:/s","ssl":true,"ssl_args":{"cert_reqs":0}}"#, #"{"remote":"unix:/s","ssl":false}"#,
        ] {
            guard case .remote(let verdict) = try decode(fine) else {
                Issue.record("\(fine) is no remote")
                continue
            }
            #expect(verdict.remotes == [.unix("/s")])
        }
    }

    @Test("a PROXY header goes ahead by number, to a plain remote and to one with TLS")
    func proxyProtocol() throws {
        func version(_ verdict: Verdict) -> Int? {
            if case .remote(let remote) = verdict { remote.proxyProtocol } else { nil }
        }
        #expect(version(try decode(#"{"remote":"a:1"}"#)) == nil)
        #expect(version(try decode(#"{"remote":"a:1","proxy_protocol":1}"#)) == 1)
        #expect(version(try decode(#"{"remotes":["a:1"],"proxy_protocol":2.0,"ssl":true}"#)) == 2)
        #expect(fault(#"{"remote":"a:1","proxy_protocol":0}"#) == "wrong_value proxy_protocol")
        #expect(fault(#"{"remote":"a:1","proxy_protocol":3}"#) == "wrong_value proxy_protocol")
        #expect(fault(#"{"remote":"a:1","proxy_protocol":"v2"}"#) == "wrong_type proxy_protocol")
    }

    @Test("after a failure TLS is tried as a verdict says it")
    func afterFailure() throws {
        let line = bytes(#"{"remote":"a:1","ssl":true,"ssl_args":{"cert_reqs":0,"server_side":1},"proxy_protocol":1}"#)
        var expected = RemoteVerdict(remotes: [.name("a", port: 1)])
        expected.tls = TLSArguments()
        expected.tls?.verifies = false
        expected.ignoredTLSArguments = ["server_side"]
        expected.proxyProtocol = 1
        #expect(try ProxyErrorAnswer.decode(line.span, line.indices) == .remote(expected))
    }

    /// An independent reader: what each value does by itself, and which error comes first.
    @Test(
        "any arguments in any order come to what they say, or to the first that is wrong",
        arguments: 1...8 as ClosedRange<UInt64>)
    func anyOrder(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        let good: [(key: String, value: String, set: @Sendable (inout TLSArguments) -> Void)] = [
            ("keyfile", "\"k\"", { $0.keyFile = "k" }), ("certfile", "\"c\"", { $0.certificateFile = "c" }),
            ("ca_certs", "\"\\u002fé\"", { $0.authoritiesFile = "/é" }), ("cert_reqs", "0", { $0.verifies = false }),
            ("cert_reqs", "1", { $0.verifies = true }), ("ssl_version", "2e0", { $0.version = 2 }),
            ("ssl_version", "5", { $0.version = 5 }), ("ciphers", "\"A B\"", { $0.ciphers = "A B" }),
            ("server_hostname", "\"B.example\"", { $0.serverName = "B.example" }),
            ("alpn", "[\"\\u00ff\" , \"h2\"]", { $0.alpn = [[255], [104, 50]] }),
            ("server_side", "{\"x\":[]}", { _ in }), ("keyfile", "null", { _ in }), ("alpn", "null", { _ in }),
        ]
        let bad: [(key: String, value: String, fault: String)] = [
            ("keyfile", "7", "wrong_type"), ("ca_certs", "\"\"", "wrong_value"), ("cert_reqs", "9", "wrong_value"),
            ("alpn", "{}", "wrong_type"), ("nonsense", "1", "unknown_key"), ("", "1", "unknown_key"),
        ]
        for _ in 0..<500 {
            var expected = TLSArguments()
            var firstFault: String?
            var seen: Set<String> = []
            var members: [String] = []
            for _ in 0..<Int.random(in: 0...6, using: &generator) {
                var key: String
                var found: String?
                if Int.random(in: 0..<8, using: &generator) == 0, let one = bad.randomElement(using: &generator) {
                    (key, found) = (one.key, one.fault)
                    members.append("\"\(one.key)\" :\(one.value)")
                } else if let one = good.randomElement(using: &generator) {
                    key = one.key
                    members.append("\"\(one.key)\":\(one.value)")
                    if !seen.contains(key) { one.set(&expected) }
                } else {
                    continue
                }
                if found != "unknown_key", !seen.insert(key).inserted { found = "duplicate_key" }
                if let found, firstFault == nil { firstFault = "\(found) ssl_args.\(key)" }
            }
            if firstFault == nil, expected.keyFile != nil, expected.certificateFile == nil {
                firstFault = "wrong_value ssl_args.keyfile"
            }
            let text = "{\(members.joined(separator: ", "))}"
            if let firstFault {
                #expect(refused(text) == firstFault, "\(text)")
            } else {
                #expect((try? read(text)?.tls) == expected, "\(text)")
            }
        }
    }
}
