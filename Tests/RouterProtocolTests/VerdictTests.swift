import Addressing
import RouterProtocol
import Testing

@Suite struct VerdictTests {
    private let local9 = Endpoint.ipv4(.loopback, port: 9)

    private func remote(_ remotes: [Endpoint], _ change: (inout RemoteVerdict) -> Void = { _ in }) -> Verdict {
        var verdict = RemoteVerdict(remotes: remotes)
        change(&verdict)
        return .remote(verdict)
    }

    @Test("not yet: null, or a number of bytes to wait for")
    func undecided() throws {
        #expect(try decode("null") == .undecided(waitFor: nil))
        #expect(try decode(#"{"wait":10}"#) == .undecided(waitFor: 10))
        #expect(try decode(#"{"wait":65536}"#) == .undecided(waitFor: 65536))
        #expect(fault(#"{"wait":65537}"#) == "wrong_value wait")
        #expect(fault(#"{"wait":0}"#) == "wrong_value wait")
        #expect(fault(#"{"wait":1.5}"#) == "wrong_value wait")
        #expect(fault(#"{"wait":"1"}"#) == "wrong_type wait")
    }

    @Test("what is no object or decides nothing is refused")
    func nothing() {
        for other in ["true", "false", "1", "\"127.0.0.1:9\"", "[]", "[\"127.0.0.1\",9]"] {
            #expect(fault(other) == "not_an_object")
        }
        for empty in [
            "{}", #"{"close":null}"#, #"{"close":false}"#, #"{"data":"x"}"#, #"{"tags":["a"],"note":"b","reset":true}"#,
            #"{"attached":true,"offset":1,"nbytes":2}"#, #"{"ssl":true,"cache":{"key":"sni","ttl":1}}"#,
            #"{"wait":null}"#,
        ] {
            #expect(fault(empty) == "decides_nothing", "\(empty)")
        }
    }

    @Test("an exchange replies, consumes, keeps state, and may wait")
    func exchange() throws {
        #expect(try decode(#"{"reply":"a"}"#) == .exchange(Exchange(reply: [97])))
        #expect(try decode(#"{"consume":100}"#) == .exchange(Exchange(consume: 100)))
        #expect(try decode(#"{"consume":2.0}"#) == .exchange(Exchange(consume: 2)))
        #expect(
            try decode(#"{"reply":"\u0005\u0000","consume":3,"state":{ "n" : [1,"é"] },"wait":10}"#)
                == .exchange(
                    Exchange(reply: [5, 0], consume: 3, state: bytes(#"{ "n" : [1,"é"] }"#), waitFor: 10)))
        #expect(try decode(#"{"state":0}"#) == .exchange(Exchange(state: [48])))
        #expect(fault(#"{"state":null}"#) == "decides_nothing")
        #expect(fault(#"{"consume":101}"#) == "wrong_value consume")
        #expect(fault(#"{"consume":-1}"#) == "wrong_value consume")
        #expect(fault(#"{"consume":1}"#, dataBytes: 0) == "wrong_value consume")
        let long = String(repeating: "x", count: 32766)
        #expect(try decode("{\"state\":\"\(long)\"}") == .exchange(Exchange(state: bytes("\"\(long)\""))))
        #expect(fault("{\"state\":\"\(long)x\"}") == "wrong_value state")
    }

    @Test("what is there already is asked about at once only after a reply or consumed bytes")
    func asksAtOnce() {
        #expect(Exchange(reply: [1]).asksAtOnce)
        #expect(Exchange(consume: 1).asksAtOnce)
        #expect(!Exchange(state: [48]).asksAtOnce)
        #expect(!Exchange(reply: [1], waitFor: 3).asksAtOnce)
    }

    @Test("a remote in all its spellings")
    func remoteSpellings() throws {
        #expect(try decode(#"{"remote":"127.0.0.1:9"}"#) == remote([local9]))
        #expect(try decode(#"{"remote":["127.0.0.1",9]}"#) == remote([local9]))
        #expect(try decode(#"{"remote":["127.0.0.1", 9.0 ]}"#) == remote([local9]))
        #expect(try decode(#"{"remote":"[::1]:9"}"#) == remote([.ipv6(.loopback, port: 9)]))
        #expect(try decode(#"{"remote":["::1",9]}"#) == remote([.ipv6(.loopback, port: 9)]))
        #expect(try decode(#"{"remote":"example.org:80"}"#) == remote([.name("example.org", port: 80)]))
        #expect(try decode(#"{"remote":"unix:/run/é.sock"}"#) == remote([.unix("/run/é.sock")]))
        #expect(
            try decode(#"{"remotes":["127.0.0.1:9",["a",1],"unix:/x"]}"#)
                == remote([local9, .name("a", port: 1), .unix("/x")]))
    }

    @Test("a remote that is none is refused")
    func badRemotes() {
        for bad in [
            #""127.0.0.1""#, #""127.0.0.1:0""#, #""127.0.0.1:99999""#, #""127.0.0.1:""#, #""127.0.0.1:http""#, #""""#,
            #"":9""#, #""::1:9""#, #""a\u0000b:9""#, #""unix:""#, #""unix:/a\u0000b""#, #"["127.0.0.1",0]"#,
            #"["127.0.0.1",65536]"#, #"["127.0.0.1",-1]"#, #"["127.0.0.1",9.5]"#, #"["a\u0000b",9]"#, #"["",9]"#,
            #"["unix:/x",9]"#, #"["a:1",9]"#, #""\ud800:9""#, #"["127.0.0.1",1e999]"#,
        ] {
            #expect(fault("{\"remote\":\(bad)}") == "wrong_value remote", "\(bad)")
            #expect(fault("{\"remotes\":[\"a:1\",\(bad)]}") == "wrong_value remotes", "\(bad)")
        }
        for bad in ["9", "true", "{}", #"["a"]"#, #"["a",1,2]"#, #"["a","1"]"#, #"[1,"a"]"#, "[]"] {
            #expect(fault("{\"remote\":\(bad)}") == "wrong_type remote", "\(bad)")
        }
        #expect(fault(#"{"remotes":"a:1"}"#) == "wrong_type remotes")
        #expect(fault(#"{"remotes":[]}"#) == "wrong_value remotes")
        let many = (1...65).map { "\"a:\($0)\"" }
        #expect(fault("{\"remotes\":[\(many.joined(separator: ","))]}") == "wrong_value remotes")
        #expect(fault("{\"remotes\":[\(many.dropLast().joined(separator: ","))]}").hasPrefix("accepted"))
        #expect(fault(#"{"remote":"a:1","remotes":["a:1"]}"#) == "conflict remotes")
    }

    @Test("what goes with a remote")
    func remoteKeys() throws {
        #expect(try decode(#"{"remote":"127.0.0.1:9","data":"x"}"#) == remote([local9]) { $0.data = [120] })
        #expect(try decode(#"{"remote":"127.0.0.1:9","data":""}"#) == remote([local9]) { $0.data = [] })
        #expect(try decode(#"{"remote":"127.0.0.1:9","data":[]}"#) == remote([local9]) { $0.data = [] })
        #expect(
            try decode(#"{"remote":"127.0.0.1:9","data":["x","","y"]}"#) == remote([local9]) { $0.data = [120, 121] })
        #expect(try decode(#"{"remote":"127.0.0.1:9","data":null}"#) == remote([local9]))
        #expect(try decode(#"{"remote":"127.0.0.1:9","consume":9}"#) == remote([local9]) { $0.consume = 9 })
        #expect(
            try decode(#"{"remote":"127.0.0.1:9","reply":"ok","reply_when":"before"}"#)
                == remote([local9]) {
                    $0.reply = bytes("ok")
                    $0.replyBefore = true
                })
        #expect(
            try decode(#"{"remote":"127.0.0.1:9","reply":["o","k"],"reply_when":"connected"}"#)
                == remote([local9]) { $0.reply = bytes("ok") })
        #expect(
            try decode(#"{"remote":"127.0.0.1:9","connect_timeout":0.25,"inactivity_timeout":1e2,"extra":[1, 2]}"#)
                == remote([local9]) {
                    $0.connectTimeoutMilliseconds = 250
                    $0.inactivityTimeoutMilliseconds = 100_000
                    $0.extra = bytes("[1, 2]")
                })
        #expect(
            try decode(#"{"remote":"127.0.0.1:9","tags":["a","b"],"note":"why"}"#)
                == remote([local9]) { $0.labels = Labels(tags: ["a", "b"], note: "why") })
        #expect(fault(#"{"remote":"a:1","data":"x","consume":0}"#) == "conflict consume")
        #expect(fault(#"{"remote":"a:1","reply_when":"after"}"#) == "wrong_value reply_when")
        #expect(fault(#"{"remote":"a:1","reply_when":true}"#) == "wrong_type reply_when")
        for bad in ["0", "-1", "1e999", "-1e999", "86400.5", "1e300"] {
            #expect(fault("{\"remote\":\"a:1\",\"connect_timeout\":\(bad)}") == "wrong_value connect_timeout", "\(bad)")
            #expect(
                fault("{\"remote\":\"a:1\",\"inactivity_timeout\":\(bad)}") == "wrong_value inactivity_timeout",
                "\(bad)")
        }
        #expect(fault(#"{"remote":"a:1","connect_timeout":"5"}"#) == "wrong_type connect_timeout")
        #expect(fault(#"{"remote":"a:1","connect_timeout":NaN}"#) == "not_json")
        #expect(
            try decode(#"{"remote":"127.0.0.1:9","connect_timeout":0.00001}"#)
                == remote([local9]) { $0.connectTimeoutMilliseconds = 1 })
    }

    @Test("the address to connect from")
    func bind() throws {
        let v4 = IPv4Address("10.0.0.1").map { LocalAddress.Address.ipv4($0) }
        let cases: [(String, LocalAddress?)] = [
            (#""10.0.0.1""#, v4.map { LocalAddress($0, port: 0) }),
            (#""10.0.0.1:4000""#, v4.map { LocalAddress($0, port: 4000) }),
            (#"["10.0.0.1",0]"#, v4.map { LocalAddress($0, port: 0) }),
            (#"["10.0.0.1",4000]"#, v4.map { LocalAddress($0, port: 4000) }),
            (#""::1""#, LocalAddress(.ipv6(.loopback), port: 0)),
            (#""[::1]""#, LocalAddress(.ipv6(.loopback), port: 0)),
            (#""[::1]:4000""#, LocalAddress(.ipv6(.loopback), port: 4000)),
        ]
        for (text, expected) in cases {
            #expect(
                try decode("{\"remote\":\"127.0.0.1:9\",\"bind\":\(text)}") == remote([local9]) { $0.bind = expected })
        }
        for bad in [#""host""#, #""host:1""#, #""unix:/x""#, #""10.0.0.1:0""#, #""""#, #"["10.0.0.1",65536]"#] {
            #expect(fault("{\"remote\":\"a:1\",\"bind\":\(bad)}") == "wrong_value bind", "\(bad)")
        }
        for bad in ["1", #"["10.0.0.1"]"#, "{}"] {
            #expect(fault("{\"remote\":\"a:1\",\"bind\":\(bad)}") == "wrong_type bind", "\(bad)")
        }
    }

    @Test("closing, plainly, with bytes, by reset")
    func close() throws {
        #expect(try decode(#"{"close":true}"#) == .close(CloseVerdict()))
        #expect(try decode(#"{"close":true,"reset":true}"#) == .close(CloseVerdict(reset: true)))
        #expect(try decode(#"{"close":"bye","reset":true}"#) == .close(CloseVerdict(bytes: bytes("bye"))))
        #expect(try decode(#"{"close":["b","ye"]}"#) == .close(CloseVerdict(bytes: bytes("bye"))))
        #expect(try decode(#"{"close":""}"#) == .close(CloseVerdict()))
        #expect(try decode(#"{"close":false,"wait":3}"#) == .undecided(waitFor: 3))
        #expect(try decode(#"{"close":"\u0000\u00ffé\n"}"#) == .close(CloseVerdict(bytes: [0, 255, 0xe9, 10])))
        var labelled = CloseVerdict()
        labelled.labels = Labels(tags: ["spam"], note: "listed")
        #expect(try decode(#"{"close":true,"tags":["spam"],"note":"listed"}"#) == .close(labelled))
        #expect(fault(#"{"close":1}"#) == "wrong_type close")
        #expect(fault(#"{"close":{}}"#) == "wrong_type close")
        #expect(fault(#"{"close":["a",1]}"#) == "wrong_type close")
        #expect(fault(#"{"close":[["a"]]}"#) == "wrong_type close")
        #expect(fault(#"{"close":true,"reset":1}"#) == "wrong_type reset")
    }

    @Test("files by path and by descriptor")
    func file() throws {
        #expect(try decode(#"{"file":"a/é"}"#) == .file(FileVerdict(source: .path("a/é"))))
        #expect(try decode(#"{"file":7}"#) == .file(FileVerdict(source: .descriptor(7, attached: false))))
        #expect(
            try decode(#"{"file":7,"attached":true}"#) == .file(FileVerdict(source: .descriptor(7, attached: true))))
        var part = FileVerdict(source: .path("x"))
        part.reply = bytes("HTTP/1.1 200 OK\r\n\r\n")
        part.offset = 9_007_199_254_740_993
        part.nbytes = 0
        #expect(
            try decode(
                #"{"file":"x","reply":"HTTP/1.1 200 OK\r\n\r\n","offset":9007199254740993,"nbytes":0,"attached":true}"#)
                == .file(part))
        for bad in [#""""#, #""a\u0000b""#, "-1", "7.5", "2147483648", #""\udc00""#] {
            #expect(fault("{\"file\":\(bad)}") == "wrong_value file", "\(bad)")
        }
        #expect(fault("{\"file\":\"\(String(repeating: "x", count: 4096))\"}") == "wrong_value file")
        #expect(fault(#"{"file":true}"#) == "wrong_type file")
        #expect(fault(#"{"file":["a"]}"#) == "wrong_type file")
        #expect(fault(#"{"file":"a","offset":-1}"#) == "wrong_value offset")
        #expect(fault(#"{"file":"a","nbytes":9223372036854775808}"#) == "wrong_value nbytes")
        #expect(fault(#"{"file":"a","nbytes":"1"}"#) == "wrong_type nbytes")
    }

    @Test("remote goes before close, close before file, and what does not apply is ignored")
    func precedence() throws {
        #expect(try decode(#"{"file":"x","close":"bye","remote":"127.0.0.1:9"}"#) == remote([local9]))
        #expect(try decode(#"{"file":"x","close":true}"#) == .close(CloseVerdict()))
        #expect(try decode(#"{"file":"x","close":false}"#) == .file(FileVerdict(source: .path("x"))))
        #expect(
            try decode(
                #"{"remote":"127.0.0.1:9","wait":5,"state":1,"offset":1,"nbytes":1,"attached":true,"reset":true}"#)
                == remote([local9]))
        #expect(
            try decode(#"{"close":true,"reply":"x","consume":1,"connect_timeout":1,"bind":"::1","extra":1,"ssl":true}"#)
                == .close(CloseVerdict()))
        #expect(fault(#"{"close":true,"offset":-1}"#) == "wrong_value offset")
    }

    @Test("a key that is unknown or comes twice is refused by name")
    func keys() {
        #expect(fault(#"{"close":true,"remot":1}"#) == "unknown_key remot")
        #expect(fault(#"{"close":true,"":1}"#) == "unknown_key ")
        #expect(fault(#"{"close":true,"Close":1}"#) == "unknown_key Close")
        #expect(fault(#"{"close":true,"a\u0007":1}"#) == "unknown_key a?")
        #expect(
            fault("{\"\(String(repeating: "x", count: 100))\":1}")
                == "unknown_key \(String(repeating: "x", count: 40))…")
        #expect(fault(#"{"close":true,"close":true}"#) == "duplicate_key close")
        #expect(fault(#"{"close":null,"clos\u0065":true}"#) == "duplicate_key close")
        #expect(fault(#"{"clos\u0065":true}"#) == "accepted: \(Verdict.close(CloseVerdict()))")
    }

    @Test("characters that are no bytes are refused by name")
    func notBytes() {
        for key in ["data", "reply", "close"] {
            for bad in ["Ā", "\\u0100", "€", "😀", "\\ud83d\\ude00", "\\ud83d", "\\udc00x"] {
                #expect(fault("{\"remote\":\"a:1\",\"\(key)\":\"ab\(bad)\"}") == "not_bytes \(key)", "\(bad)")
                #expect(fault("{\"remote\":\"a:1\",\"\(key)\":[\"\",\"\(bad)\"]}") == "not_bytes \(key)", "\(bad)")
            }
            #expect(fault("{\"remote\":\"a:1\",\"\(key)\":1}") == "wrong_type \(key)")
        }
    }

    @Test("tags and notes are bounded")
    func labels() {
        #expect(fault(#"{"close":true,"tags":"a"}"#) == "wrong_type tags")
        #expect(fault(#"{"close":true,"tags":[1]}"#) == "wrong_type tags")
        #expect(fault(#"{"close":true,"tags":[""]}"#) == "wrong_value tags")
        #expect(fault(#"{"close":true,"tags":["\#(String(repeating: "x", count: 129))"]}"#) == "wrong_value tags")
        let many = [String](repeating: "\"t\"", count: 17).joined(separator: ",")
        #expect(fault("{\"close\":true,\"tags\":[\(many)]}") == "wrong_value tags")
        #expect(fault(#"{"close":true,"note":1}"#) == "wrong_type note")
        #expect(fault(#"{"close":true,"note":"\#(String(repeating: "x", count: 1025))"}"#) == "wrong_value note")
    }

    @Test("a verdict may be kept by what decided it, for a time")
    func cache() throws {
        func rule(_ cache: String) throws(ProtocolError) -> CacheRule? {
            guard case .remote(let verdict) = try decode(#"{"remote":"127.0.0.1:9","cache":"# + cache + "}") else {
                return nil
            }
            return verdict.cache
        }
        #expect(try rule("null") == nil)
        #expect(try rule(#"{"key":"sni","ttl":5}"#) == CacheRule(key: .sni, milliseconds: 5000))
        #expect(try rule(#"{"ttl":0.0001,"key":["client"]}"#) == CacheRule(key: .client, milliseconds: 1))
        #expect(
            try rule(#"{"key":["h\u006fst","data","sni","client","listener"],"ttl":1.5e1}"#)
                == CacheRule(key: [.host, .data, .sni, .client], milliseconds: 15000))
        #expect(try rule(#"{"key":["listener","listener"],"ttl":1}"#) == CacheRule(key: [], milliseconds: 1000))
        for (cache, expected) in [
            ("true", "wrong_type cache"), ("[]", "wrong_type cache"), ("{}", "wrong_value cache"),
            (#"{"key":"sni"}"#, "wrong_value cache"), (#"{"ttl":1}"#, "wrong_value cache"),
            (#"{"key":"sni","ttl":null}"#, "wrong_value cache"), (#"{"key":"x","ttl":1}"#, "wrong_value cache.key"),
            (#"{"key":{},"ttl":1}"#, "wrong_type cache.key"), (#"{"key":[[]],"ttl":1}"#, "wrong_type cache.key"),
            (#"{"key":["sni","sni","sni","sni","sni","sni"],"ttl":1}"#, "wrong_value cache.key"),
            (#"{"key":"\ud800","ttl":1}"#, "wrong_value cache.key"),
            (#"{"key":"sni","ttl":-1}"#, "wrong_value cache.ttl"),
            (#"{"key":"sni","ttl":1e999}"#, "wrong_value cache.ttl"),
            (#"{"key":"sni","ttl":1,"x":0}"#, "unknown_key cache.x"),
            (#"{"key":"sni","key":"sni","ttl":1}"#, "duplicate_key cache.key"),
        ] {
            #expect(fault(#"{"remote":"127.0.0.1:9","cache":"# + cache + "}") == expected, "\(cache)")
        }
    }

    @Test("what is for one client is not cached, and the key that forbids it is named")
    func cacheConflicts() throws {
        let cache = #""cache":{"key":"sni","ttl":5}"#
        for (other, name) in [
            (#""data":"""#, "data"), (#""reply":"a""#, "reply"), (#""state":0"#, "state"), (#""consume":0"#, "consume"),
        ] {
            for verdict in [#""remote":"a:1""#, #""close":true"#, #""file":"x""#] {
                let json = "{\(verdict),\(other),\(cache)}"
                do throws(ProtocolError) {
                    Issue.record("accepted: \(try decode(json))")
                } catch {
                    #expect("\(error)" == "cache: not beside \(name)")
                }
            }
        }
        #expect(fault("{\"file\":7,\(cache)}") == "conflict cache")
        #expect(fault("{\"file\":7,\"close\":false,\(cache)}") == "conflict cache")
        var close = CloseVerdict()
        close.cache = CacheRule(key: .sni, milliseconds: 5000)
        #expect(try decode("{\"file\":7,\"close\":true,\"data\":null,\(cache)}") == .close(close))
        #expect(try decode("{\"wait\":3,\(cache)}") == .undecided(waitFor: 3))
        let answer = Array(("{\"remote\":\"127.0.0.1:9\",\(cache)}").utf8)
        #expect(
            try ProxyErrorAnswer.decode(answer.span, answer.indices)
                == .remote(RemoteVerdict(remotes: [.ipv4(.loopback, port: 9)])))
    }

    @Test("an error says what was wrong and what would have been right")
    func description() {
        func text(_ json: String) -> String {
            do throws(ProtocolError) { return "\(try decode(json))" } catch { return "\(error)" }
        }
        #expect(text(#"{"wait":70000}"#) == "wait: must be a whole number, 1 to 65536")
        #expect(text(#"{"remote":"a:1","ssl_args":{"a":1}}"#) == "ssl_args.a: no such argument")
        #expect(text(#"{"wiat":1}"#) == "wiat: no such key")
        #expect(text("{}") == "the answer decides nothing")
    }

    @Test("every fault has a number of its own")
    func numbers() {
        #expect(Set(Fault.allCases.map(\.number)).count == Fault.allCases.count)
    }
}

@Suite struct DescriptorClaimTests {
    private func claim(_ json: String) -> DescriptorClaim {
        let line = bytes("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\(json)}")
        guard case .answer(1, let result)? = try? RouterMessage.parse(line.span) else { return .none }
        return DescriptorClaim(line.span, result)
    }

    @Test("an answer claims its descriptor even when it is refused")
    func claims() {
        #expect(claim(#"{"file":7}"#) == .named)
        #expect(claim(#"{"file":7,"attached":false}"#) == .named)
        #expect(claim(#"{"file":7,"attached":true}"#) == .attached)
        #expect(claim(#"{"attached":true,"file":7,"unknown":1}"#) == .attached)
        #expect(claim(#"{"file":-7.5,"\u0061ttached":true,"close":1}"#) == .attached)
        #expect(claim(#"{"remote":"a:1","file":"x","attached":true}"#) == .attached)
        for other in ["null", "7", "[]", "{}", #"{"file":"x"}"#, #"{"close":"attached"}"#, #"{"attached":1}"#] {
            #expect(claim(other) == .none, "\(other)")
        }
    }
}

@Suite struct ProxyErrorAnswerTests {
    private func answer(_ json: String) throws(ProtocolError) -> ProxyErrorAnswer {
        let line = bytes("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\(json)}")
        guard case .answer(1, let result) = try RouterMessage.parse(line.span) else { return .none }
        return try ProxyErrorAnswer.decode(line.span, result)
    }

    private func fault(_ json: String) -> String {
        do throws(ProtocolError) {
            return "accepted: \(try answer(json))"
        } catch {
            return error.key.map { "\(error.fault.rawValue) \($0)" } ?? error.fault.rawValue
        }
    }

    @Test("null closes, bytes are a last word, another remote is tried")
    func answers() throws {
        #expect(try answer("null") == .none)
        #expect(try answer(#"{"close":"502\n"}"#) == .close(bytes("502\n")))
        #expect(try answer(#"{"close":["5","02"],"note":"x"}"#) == .close(bytes("502")))
        #expect(try answer(#"{"close":true}"#) == .close([]))
        #expect(try answer(#"{"remote":"a:1"}"#) == .remote(RemoteVerdict(remotes: [.name("a", port: 1)])))
        #expect(fault(#"{"remote":"a"}"#) == "wrong_value remote")
        #expect(fault(#"{"file":"x"}"#) == "wrong_value file")
        #expect(fault("{}") == "decides_nothing")
        #expect(fault(#"{"reply":"x"}"#) == "decides_nothing")
        #expect(fault("true") == "not_an_object")
        #expect(fault(#"{"clos":"x"}"#) == "unknown_key clos")
    }
}

@Suite struct HelloAnswerTests {
    private func answer(_ json: String) throws(ProtocolError) -> HelloAnswer {
        let line = bytes("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\(json)}")
        guard case .answer(1, let result) = try RouterMessage.parse(line.span) else { return .bare }
        return try HelloAnswer.decode(line.span, result)
    }

    private func fault(_ json: String) -> String {
        do throws(ProtocolError) {
            return "accepted: \(try answer(json))"
        } catch {
            return error.key.map { "\(error.fault.rawValue) \($0)" } ?? error.fault.rawValue
        }
    }

    @Test("an answer without protocol is that of a bare router, whatever else is in it")
    func bare() throws {
        for json in [
            "null", "true", "[]", "{}", #"{"close":true}"#, #"{"remote":"127.0.0.1:9"}"#, #"{"protocol":null}"#,
            #"{"methods":7,"max_in_flight":0}"#, #"{"name":"x","name":"y"}"#,
        ] {
            #expect(try answer(json) == .bare, "\(json)")
        }
        #expect(HelloAnswer.bare.methods == .proxy && HelloAnswer.bare.events == [.data])
        #expect(HelloAnswer.bare.inFlightMax == 64)
    }

    @Test("a router says what it implements, wants and stands")
    func full() throws {
        #expect(
            try answer(
                #"{"max_in_flight":1,"events":["silence","eof"],"methods":["proxy","cancel","new"],"name":"r","protocol":1}"#
            )
                == HelloAnswer(
                    isBare: false, name: "r", methods: [.proxy, .cancel], events: [.data, .silence, .eof],
                    inFlightMax: 1))
        #expect(
            try answer(#"{"protocol":1.0,"methods":null,"events":["data","new"],"pid":7}"#)
                == HelloAnswer(isBare: false, name: nil, methods: [.proxy], events: [.data], inFlightMax: 64))
        #expect(
            try answer(#"{"protocol":1,"methods":["proxy","proxy_error","cancel","shutdown","taken","closed"]}"#)
                .methods
                == [.proxy, .proxyError, .cancel, .shutdown, .taken, .closed])
    }

    @Test("what is wrong with a greeting is named, and a newer protocol first of all")
    func faults() {
        #expect(fault(#"{"protocol":2,"methods":7}"#) == "newer_protocol protocol")
        #expect(fault(#"{"methods":7,"protocol":2}"#) == "newer_protocol protocol")
        #expect(fault(#"{"protocol":"1"}"#) == "wrong_type protocol")
        #expect(fault(#"{"protocol":0}"#) == "wrong_value protocol")
        #expect(fault(#"{"protocol":1.5}"#) == "wrong_value protocol")
        #expect(fault(#"{"protocol":1,"protocol":1}"#) == "duplicate_key protocol")
        #expect(fault(#"{"protocol":1,"methods":["cancel"]}"#) == "wrong_value methods")
        #expect(fault(#"{"protocol":1,"methods":[]}"#) == "wrong_value methods")
        #expect(fault(#"{"protocol":1,"methods":"proxy"}"#) == "wrong_type methods")
        #expect(fault(#"{"protocol":1,"methods":["proxy",1]}"#) == "wrong_type methods")
        #expect(fault(#"{"protocol":1,"events":{}}"#) == "wrong_type events")
        #expect(fault(#"{"protocol":1,"max_in_flight":0}"#) == "wrong_value max_in_flight")
        #expect(fault(#"{"protocol":1,"max_in_flight":65537}"#) == "wrong_value max_in_flight")
        #expect(fault(#"{"protocol":1,"max_in_flight":"64"}"#) == "wrong_type max_in_flight")
        #expect(fault(#"{"protocol":1,"name":7}"#) == "wrong_type name")
        #expect(fault(#"{"protocol":1,"name":"\#(String(repeating: "x", count: 129))"}"#) == "wrong_value name")
    }
}
