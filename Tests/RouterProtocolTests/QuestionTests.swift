import Addressing
import RouterProtocol
import Testing

@Suite struct QuestionTests {
    private func text(_ write: (inout [UInt8]) -> Void) -> String {
        var line: [UInt8] = []
        write(&line)
        return String(decoding: line, as: UTF8.self)
    }

    private func text(_ question: Question, data: [UInt8]) -> String {
        text { question.append(to: &$0, data: data.span) }
    }

    private let client = Endpoint.ipv4(.loopback, port: 40000)
    private let local = Endpoint.ipv4(.loopback, port: 5000)

    @Test("a question is one line with everything in it")
    func question() {
        let question = Question(
            id: 18_446_744_073_709_551_615, connection: "1.7", event: .data, client: client, local: local,
            listener: "127.0.0.1:5000", replay: 0, deadlineMilliseconds: 5000, state: nil)
        #expect(
            text(question, data: bytes("GET \"/\\\r\n\t\u{7f}"))
                == #"{"jsonrpc":"2.0","id":18446744073709551615,"method":"proxy","params":{"connection":"1.7","#
                + #""event":"data","data":"GET \"/\\\r\n\t"# + "\u{7f}"
                + #"","client":["127.0.0.1",40000],"local":["127.0.0.1",5000],"#
                + #""listener":"127.0.0.1:5000","replay":0,"deadline_ms":5000}}"# + "\n")
    }

    @Test("a Unix client has no address, and state comes back as it was")
    func unix() {
        let question = Question(
            id: 2, connection: "1.8", event: .eof, client: nil, local: .unix("/x"), listener: "unix:/a\"b", replay: 1,
            deadlineMilliseconds: 1, state: bytes("{ \"n\": 1 }"))
        #expect(
            text(question, data: [])
                == #"{"jsonrpc":"2.0","id":2,"method":"proxy","params":{"connection":"1.8","event":"eof","data":"","#
                + #""client":null,"local":null,"listener":"unix:/a\"b","replay":1,"deadline_ms":1,"state":{ "n": 1 }}}"#
                + "\n")
    }

    @Test("every byte comes back from its string as it was")
    func allBytes() throws {
        let all = Array(UInt8.min...UInt8.max)
        let question = Question(
            id: 1, connection: "c", event: .data, client: nil, local: nil, listener: "l", replay: 0,
            deadlineMilliseconds: 0, state: nil)
        let line = text(question, data: all)
        #expect(try decode("{\"close\":\(dataString(of: Array(line.utf8)))}") == .close(CloseVerdict(bytes: all)))
        #expect(line.contains(#"\u0000\u0001"#) && line.contains(#"\u001f "#))
    }

    @Test("no question outgrows the bound that hello tells")
    func bound() {
        let limits = Hello.Limits(
            lineBytesMax: 1, initialBytesMax: 1000, routerTimeoutMilliseconds: 1, verdictTimeoutMilliseconds: 1)
        let data = [UInt8](repeating: 0, count: limits.initialBytesMax)
        let longest = Endpoint.name(String(repeating: "n", count: 255), port: 65535)
        let question = Question(
            id: .max, connection: String(repeating: "9", count: 40), event: .connect, client: longest, local: longest,
            listener: String(repeating: "\u{1}", count: 120), replay: .max, deadlineMilliseconds: .max,
            state: [UInt8](repeating: 48, count: VerdictLimits.stateBytesMax))
        let hello = ClientHelloFacts(
            state: .complete, serverName: String(repeating: "\"", count: 255),
            protocols: [[UInt8]](
                repeating: .init(
                    repeating: 0, count: ClientHelloFacts.protocolBytesMax / ClientHelloFacts.protocolsMax),
                count: ClientHelloFacts.protocolsMax))
        let longestText = text { question.append(to: &$0, data: data.span, clientHello: hello) }
        #expect(longestText.utf8.count <= limits.questionBytesMax)
        let long = String(repeating: "\u{1}", count: 10000)
        let tls = TLSFacts(
            version: long, cipher: long, sni: long, alpn: long,
            clientCertificate: .init(
                subject: long, issuer: long,
                names: [String](repeating: String(long.prefix(31)), count: 10000) + [long], fingerprint: long))
        let insideTLS = text { question.append(to: &$0, data: data.span, tls: tls) }
        #expect(insideTLS.utf8.count <= limits.questionBytesMax)
        let attempt = ErrorQuestion.Attempt(
            remote: longest, failure: .connectRefused, message: String(repeating: "\u{1}", count: 10000))
        let failed = ErrorQuestion(
            id: .max, connection: "c", failure: .dns, message: attempt.message, errno: .min,
            attempts: [ErrorQuestion.Attempt](repeating: attempt, count: 1000), client: longest, remote: longest,
            listener: question.listener, replay: .max, deadlineMilliseconds: .max)
        #expect(text { failed.append(to: &$0) }.utf8.count <= limits.questionBytesMax)
    }

    @Test("a client hello is told when there is one, with a name or with null, and only what is known")
    func clientHello() {
        func told(_ hello: ClientHelloFacts?) -> String {
            let question = Question(
                id: 2, connection: "c", event: .data, client: nil, local: nil, listener: "l", replay: 0,
                deadlineMilliseconds: 1, state: bytes("0"))
            let line = text { question.append(to: &$0, data: [22].span, clientHello: hello) }
            let start =
                #"{"jsonrpc":"2.0","id":2,"method":"proxy","params":{"connection":"c","event":"data","data":"\u0016","#
            let start2 = #""client":null,"local":null,"listener":"l","replay":0,"deadline_ms":1,"#
            #expect(line.hasPrefix(start + start2) && line.hasSuffix("\"state\":0}}\n"))
            return String(line.dropFirst((start + start2).utf8.count).dropLast(12))
        }
        #expect(told(nil) == "")
        for state in ClientHelloFacts.State.allCases where state != .complete {
            let facts = ClientHelloFacts(state: state, serverName: "a", protocols: [[1]])
            #expect(told(facts) == #""client_hello":{"state":""# + state.rawValue + #""},"#)
        }
        #expect(
            told(ClientHelloFacts(state: .complete, serverName: "a\"", protocols: [bytes("h2"), [0x8a, 1]]))
                == #""client_hello":{"state":"complete","sni":"a\"","alpn":["h2","\#u{8a}\u0001"]},"#)
        #expect(
            told(ClientHelloFacts(state: .complete))
                == #""client_hello":{"state":"complete","sni":null,"alpn":[]},"#)
        #expect(
            told(ClientHelloFacts(state: .complete, hasUnusableServerName: true))
                == #""client_hello":{"state":"complete","sni":null,"sni_unusable":true,"alpn":[]},"#)
    }

    @Test("a client whose TLS ends here is told with what was agreed, and with null for what was not")
    func tls() {
        func told(_ facts: TLSFacts) -> String {
            let question = Question(
                id: 2, connection: "c", event: .data, client: nil, local: nil, listener: "l", replay: 0,
                deadlineMilliseconds: 1, state: bytes("0"))
            let line = text { question.append(to: &$0, data: [UInt8]().span, tls: facts) }
            let start =
                #"{"jsonrpc":"2.0","id":2,"method":"proxy","params":{"connection":"c","event":"data","data":"","#
                + #""client":null,"local":null,"listener":"l","replay":0,"deadline_ms":1,"tls":"#
            #expect(line.hasPrefix(start) && line.hasSuffix(",\"state\":0}}\n"))
            return String(line.dropFirst(start.utf8.count).dropLast(13))
        }
        var facts = TLSFacts(version: "TLSv1.3", cipher: "X", sni: nil, alpn: nil, clientCertificate: nil)
        #expect(
            told(facts) == #"{"version":"TLSv1.3","cipher":"X","sni":null,"alpn":null,"client_certificate":null}"#)
        facts.sni = "A.example"
        facts.alpn = "h2"
        facts.clientCertificate = .init(
            subject: "CN=\"é", issuer: "CN=CA", names: ["DNS:a", "IP:::1"], fingerprint: "00ff")
        #expect(
            told(facts) == #"{"version":"TLSv1.3","cipher":"X","sni":"A.example","alpn":"h2","client_certificate":"#
                + #"{"subject":"CN=\"é","issuer":"CN=CA","names":["DNS:a","IP:::1"],"fingerprint":"00ff"}}"#)
        facts.clientCertificate = .init(subject: "", issuer: "", names: [], fingerprint: "")
        #expect(told(facts).hasSuffix(#":{"subject":"","issuer":"","names":[],"fingerprint":""}}"#))
    }

    @Test("a name that is cut equals no other, and alternative names are told whole or not at all")
    func longNames() throws {
        func told(subject: String, names: [String]) -> String {
            let question = Question(
                id: 2, connection: "c", event: .data, client: nil, local: nil, listener: "l", replay: 0,
                deadlineMilliseconds: 1, state: nil)
            let facts = TLSFacts(
                version: "v", cipher: "c", sni: nil, alpn: nil,
                clientCertificate: .init(subject: subject, issuer: "i", names: names, fingerprint: "f"))
            return text { question.append(to: &$0, data: [UInt8]().span, tls: facts) }
        }
        let longest = String(repeating: "x", count: TLSFacts.distinguishedNameBytesMax)
        #expect(told(subject: longest, names: []).contains("\"subject\":\"\(longest)\""))
        #expect(told(subject: longest + "y", names: []).contains("\"subject\":\"\(longest)…\""))
        let many = (0..<1000).map { "DNS:\($0)" }
        let line = told(subject: "s", names: many)
        #expect(line.contains("\"DNS:\(TLSFacts.alternativeNamesMax - 1)\"],"))
        let half = "DNS:" + String(repeating: "h", count: TLSFacts.alternativeNameBytesMax / 2)
        #expect(told(subject: "s", names: [half, half, "DNS:c"]).contains("\"names\":[\"\(half)\"]"))
    }

    @Test("a failed remote is told with all attempts")
    func failed() {
        let nine = Endpoint.ipv4(.loopback, port: 9)
        let question = ErrorQuestion(
            id: 3, connection: "1.7", failure: .connectRefused, message: "connect to 127.0.0.1:9: Connection refused",
            errno: 111,
            attempts: [
                .init(remote: .name("a", port: 1), failure: .dns, message: "no"),
                .init(remote: nine, failure: .connectRefused, message: "é"),
            ],
            client: client, remote: nine, listener: "127.0.0.1:5000", replay: 0, deadlineMilliseconds: 5000)
        #expect(
            text { question.append(to: &$0) }
                == #"{"jsonrpc":"2.0","id":3,"method":"proxy_error","params":{"connection":"1.7","type":"connect_refused","#
                + #""message":"connect to 127.0.0.1:9: Connection refused","errno":111,"attempts":["#
                + #"{"remote":"a:1","type":"dns","message":"no"},"#
                + #"{"remote":"127.0.0.1:9","type":"connect_refused","message":"é"}],"client":["127.0.0.1",40000],"#
                + #""remote":"127.0.0.1:9","listener":"127.0.0.1:5000","replay":0,"deadline_ms":5000}}"# + "\n")
    }

    @Test("a long message is cut between characters, and a file has no remote")
    func cut() {
        let question = ErrorQuestion(
            id: 3, connection: "c", failure: .file, message: "x" + String(repeating: "é", count: 200), errno: nil,
            attempts: [], client: nil, remote: nil, listener: "l", replay: 0, deadlineMilliseconds: 1)
        let line = text { question.append(to: &$0) }
        #expect(line.contains("\"x" + String(repeating: "é", count: 127) + "\",\"errno\":null,\"attempts\":[],"))
        #expect(line.contains("\"client\":null,\"remote\":null,"))
    }

    @Test("the greeting tells listeners and limits")
    func hello() {
        let hello = Hello(
            id: 1, version: "0.1.0", worker: "1", generation: 1,
            listeners: [
                .init(name: "127.0.0.1:5000", address: local), .init(name: "unix:/x", address: .unix("/x")),
            ],
            limits: .init(
                lineBytesMax: 16_777_216, initialBytesMax: 65536, routerTimeoutMilliseconds: 5000,
                verdictTimeoutMilliseconds: 30000))
        #expect(
            text { hello.append(to: &$0) }
                == #"{"jsonrpc":"2.0","id":1,"method":"hello","params":{"protocol":1,"tproxy":"0.1.0","worker":"1","#
                + #""generation":1,"listeners":[{"name":"127.0.0.1:5000","address":["127.0.0.1",5000]},"#
                + #"{"name":"unix:/x","address":null}],"limits":{"line_bytes_max":16777216,"#
                + #""question_bytes_max":458752,"initial_bytes_max":65536,"router_timeout_ms":5000,"#
                + #""verdict_timeout_ms":30000}}}"# + "\n")
        #expect(
            Hello.Limits(
                lineBytesMax: 0, initialBytesMax: .max, routerTimeoutMilliseconds: 0, verdictTimeoutMilliseconds: 0
            ).questionBytesMax == .max)
    }

    @Test("notices have no id of their own")
    func notices() {
        #expect(
            text { Notice.cancel(id: 2, connection: "1.7").append(to: &$0) }
                == #"{"jsonrpc":"2.0","method":"cancel","params":{"id":2,"connection":"1.7"}}"# + "\n")
        #expect(text { Notice.shutdown.append(to: &$0) } == #"{"jsonrpc":"2.0","method":"shutdown"}"# + "\n")
        #expect(
            text { Notice.taken(id: 10).append(to: &$0) }
                == #"{"jsonrpc":"2.0","method":"taken","params":{"id":10}}"# + "\n")
    }
}
