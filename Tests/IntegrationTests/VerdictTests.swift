import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// Every verdict, as a client, a remote and the access log see it.
    @Suite struct Verdicts {
        @Test("a remote gets the initial bytes and then everything, both ways", arguments: ["text", "pair"])
        func remote(form: String) throws {
            try withTProxy { proxy in
                let origin = try Origin()
                let remote = form == "text" ? "\"\(origin.address)\"" : "[\"127.0.0.1\", \(origin.port)]"
                let order = "{\"answer\": {\"remote\": \(remote), \"note\": \"to \\\"it\\\"\\n\"}}\n"
                let client = try proxy.client()
                try client.send(order + "first")
                let server = try origin.accept()
                try server.expect(order + "first")
                try server.send("answer")
                try client.expect("answer")
                try client.send("second")
                try server.expect("second")
                client.end()
                #expect(try server.ending() == .end)
                try server.send("after the end")
                server.end()
                #expect(try client.text() == "after the end")
                let access = try proxy.access(client)
                #expect(access["verdict"] == "remote" && access["remote"] == origin.address, "\(access)")
                #expect(access["reason"] == "done" && access["attempts"] == "1", "\(access)")
                #expect(access["to_remote"] == "\(order.utf8.count + 11)" && access["to_client"] == "19", "\(access)")
                #expect(access["note"] == #""to \"it\"\n""#, "\(access)")
                #expect(access.number("verdict_ms") >= 0 && access.number("connect_ms") >= 0)
                #expect(access.number("duration_ms") >= access.number("verdict_ms"))
            }
        }

        @Test("a remote can be a Unix socket, or a name with several addresses")
        func otherAddresses() throws {
            try withTProxy { proxy in
                let folder = Folder()
                let unix = try Origin(unix: "\(folder.path)/origin")
                let client = try proxy.client(#"{"answer": {"remote": "\#(unix.address)"}, "rest": true}"#, "hello")
                let server = try unix.accept()
                try server.expect("hello")
                try server.send("from unix")
                try client.expect("from unix")
                // Where localhost is ::1 first, that is refused and 127.0.0.1 tried.
                let origin = try Origin()
                let second = try proxy.client(
                    #"{"answer": {"remote": "localhost:\#(origin.port)"}, "rest": true}"#, "by name")
                try origin.accept().expect("by name")
                second.close()
            }
        }

        @Test("remotes are tried in order until one connects")
        func remotes() throws {
            try withTProxy { proxy in
                let origin = try Origin()
                let dead = try deadPort()
                let client = try proxy.client(
                    #"{"answer": {"remotes": ["127.0.0.1:\#(dead)", "\#(origin.address)"]}, "rest": true}"#, "hello")
                let server = try origin.accept()
                try server.expect("hello")
                let port = client.localPort
                server.close()
                client.close()
                let access = try proxy.access(port: port)
                #expect(access["attempts"] == "2" && access["remote"] == origin.address, "\(access)")
            }
        }

        @Test("data replaces the initial bytes, also by nothing; consume drops their beginning")
        func data() throws {
            try withTProxy { proxy in
                let origin = try Origin()
                let replaced = try proxy.client(
                    #"{"answer": {"remote": "\#(origin.address)", "data": ["one ", "\u00ff", " two"]}}"#)
                let first = try origin.accept()
                #expect(try first.receive(9) == Array("one ".utf8) + [0xff] + Array(" two".utf8))
                try replaced.send("later")
                try first.expect("later")
                let none = try proxy.client(#"{"answer": {"remote": "\#(origin.address)", "data": ""}}"#)
                let server = try origin.accept()
                #expect(try server.drain(within: 0.1).ending == .stillOpen)
                try none.send("later")
                try server.expect("later")
                let dropped = try proxy.client(#"{"answer": {"remote": "\#(origin.address)", "consume": 5}}"#)
                try origin.accept().expect(#"wer": {"#)
                dropped.close()
            }
        }

        @Test("reply goes to the client once the remote is connected, ahead of anything from it")
        func reply() throws {
            try withTProxy { proxy in
                let origin = try Origin()
                let client = try proxy.client(#"{"answer": {"remote": "\#(origin.address)", "reply": "hello "}}"#)
                try origin.accept().send("world")
                try client.expect("hello world")
                // Not before: a remote that refuses makes it a lie.
                let refused = try proxy.client(
                    #"{"answer": {"remote": "127.0.0.1:\#(try deadPort())", "reply": "connected"}}"#)
                #expect(try refused.text() == "")
                let before = try proxy.client(
                    #"{"answer": {"remote": "127.0.0.1:\#(try deadPort())", "reply": "already", "reply_when": "before"}}"#
                )
                #expect(try before.text() == "already")
            }
        }

        @Test("close closes, with bytes the client really gets, or with a reset")
        func close() throws {
            try withTProxy { proxy in
                let client = try proxy.client(#"{"answer": {"close": true}}"#)
                #expect(try client.text() == "")
                #expect(try proxy.access(client)["reason"] == "closed")
                let words = try proxy.client(#"{"answer": {"close": ["last ", "words\n"]}}"#)
                #expect(try words.text() == "last words\n")
                let access = try proxy.access(words)
                #expect(
                    access["verdict"] == "close" && access["to_client"] == "11" && access["remote"] == "-", "\(access)")
                let reset = try proxy.client(#"{"answer": {"close": true, "reset": true}}"#)
                #expect(try reset.ending() == .reset)
                #expect(try proxy.access(reset)["reason"] == "closed_by_reset")
            }
        }

        @Test("an answer arrives whole though the client still sends what nobody will read")
        func lingering() throws {
            try withTProxy(["--max-initial-bytes", "1000000"]) { proxy in
                let client = try proxy.client()
                try client.send(#"{"answer": {"close": "\#(String(repeating: "y", count: 500_000))"}}"# + "\n")
                _ = client.pour(atMost: 300_000, untilStuckFor: 0.2)
                let (bytes, ending) = try client.drain()
                #expect(bytes.count == 500_000 && ending == .end)
                let short = try proxy.client(#"{"answer": {"close": "short"}}"#, String(repeating: "z", count: 200_000))
                #expect(try short.text() == "short")
            }
        }

        @Test("null and wait ask again when more has come, and not before")
        func undecided() throws {
            let folder = Folder()
            let log = try folder.file("questions")
            func asked() throws -> [String] {
                try String(contentsOfFile: log, encoding: .utf8).split(separator: "\n").map(String.init)
            }
            try withTProxy(router: Repository.python("waiting.py"), environment: ["ROUTER_LOG": log]) { proxy in
                let client = try proxy.client()
                try client.send("wa")
                try Deadline(in: patience).until("the first question") { try asked() == ["wa"] }
                try client.send("it 8\n")
                try Deadline(in: patience).until("the second question") { try asked().last == "wait 8\\n" }
                try client.send("abc")
                // Served behind those bytes: by then they have been read.
                let other = try proxy.client()
                try other.send("bye\n")
                #expect(try other.text() == "bye\n\n")
                #expect(try asked() == ["wa", "wait 8\\n", "bye\\n"])
                try client.send("defgh")
                #expect(try client.text() == "wait 8\nabcdefgh\n")
            }
        }

        @Test("reply, consume and state carry on a conversation before the verdict")
        func conversation() throws {
            try withTProxy(router: Repository.python("waiting.py")) { proxy in
                let client = try proxy.client()
                try client.send("HELO me\n")
                try client.expect("250 hello\n")
                try client.send("AUTH you\n")
                try client.expect("250 {\"greeted\": \"HELO me\"}\n")
                try client.send("QUIT\n")
                #expect(try client.text() == "221 AUTH you\n")
                // All in one packet: what is left after `consume` is asked about at once.
                let hasty = try proxy.client()
                try hasty.send("HELO a\nAUTH b\nQUIT\n")
                #expect(try hasty.text() == "250 hello\n250 {\"greeted\": \"HELO a\"}\n221 AUTH b\n")
            }
        }

        @Test("the question has what the specification says")
        func question() throws {
            let folder = Folder()
            let path = "\(folder.path)/front"
            try withTProxy(["-b", "127.0.0.1:0", "-b", "unix:\(path)"]) { proxy in
                let client = try proxy.client(#"{"report": true}"#, "\u{1}\"é")
                let port = client.localPort
                let json = try JSONSerialization.jsonObject(with: Data(client.drain().bytes))
                let question = try #require(json as? [String: Any])
                #expect(question["event"] as? String == "data")
                #expect(question["data"] as? String == "{\"report\": true}\n\u{1}\"\u{c3}\u{a9}")
                #expect((question["client"] as? [Any])?.first as? String == "127.0.0.1")
                #expect((question["client"] as? [Any])?.last as? Int == Int(port))
                #expect((question["local"] as? [Any])?.last as? Int == Int(proxy.port))
                #expect((question["listener"] as? String)?.hasPrefix("127.0.0.1:") == true)
                #expect(question["replay"] as? Int == 0)
                #expect((question["deadline_ms"] as? Int).map { $0 > 0 && $0 <= 5000 } == true)
                #expect((question["connection"] as? String)?.isEmpty == false)
                #expect(
                    Set(question.keys).isSubset(of: [
                        "connection", "event", "data", "client", "local", "listener", "replay", "deadline_ms",
                    ]))
                let local = try Peer(unix: path)
                try local.send("{\"report\": true}\n")
                let second = try #require(
                    try JSONSerialization.jsonObject(with: Data(local.drain().bytes)) as? [String: Any])
                #expect(second["client"] is NSNull && second["local"] is NSNull)
                #expect(second["listener"] as? String == "unix:\(path)")
                #expect(second["connection"] as? String != question["connection"] as? String)
                var status = stat()
                #expect(stat(path, &status) == 0 && status.st_mode & 0o777 == 0o600)
            }
            #expect(access(path, F_OK) != 0, "the socket's file is removed")
        }

        @Test("bind chooses the local address")
        func bind() throws {
            try withTProxy { proxy in
                let origin = try Origin()
                let client = try proxy.client(#"{"answer": {"remote": "\#(origin.address)", "bind": "127.0.0.77"}}"#)
                let server = try origin.accept()
                var address = sockaddr_in()
                var length = socklen_t(MemoryLayout<sockaddr_in>.size)
                _ = withUnsafeMutablePointer(to: &address) {
                    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(server.raw, $0, &length) }
                }
                #expect(UInt32(bigEndian: address.sin_addr.s_addr) == 0x7f00_004d)
                client.close()
            }
        }
    }
}
