import Control
import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// A canary and a shadow beside the router that decides.
    @Suite struct RoutersBeside {
        private func answers(_ proxy: TProxy, _ count: Int = 1) throws -> Set<String> {
            try Set(
                (0..<count).map { _ in
                    let client = try proxy.client("?")
                    return try client.text()
                })
        }

        @Test("the canary decides for its share, and the main router for it when it fails")
        func canary() throws {
            let (main, canary) = (ScriptFile(), ScriptFile())
            try main.write("main")
            try canary.write("canary")
            // All tests come from one address: it is in the share or it is not.
            try withTProxy(["--canary-router", canary.command, "--canary", "100%"], router: main.command) { proxy in
                let worker = try proxy.worker()
                try Deadline(in: patience).until("the canary") { try answers(proxy) == ["canary"] }
                #expect(try answers(proxy, 20) == ["canary"])
                // Dead, and dead of every question: nobody notices.
                try canary.write("?", before: #"if message["method"] == "proxy": os._exit(1)"#)
                proxy.process.signal(SIGHUP)
                try proxy.process.line(with: "reloaded: ")
                // The new one dies of its first question, and the old one is back.
                #expect(try answers(proxy, 30).isSubset(of: ["main", "canary"]))
                try canary.write("not used", before: #"if message["method"] == "proxy": sys.exit("broken")"#)
                for router in proxy.routers(of: worker) {
                    let line = (try? Proc.text("\(router)/cmdline")) ?? ""
                    if line.contains(canary.path) { kill(router, SIGKILL) }
                }
                for _ in 0..<30 { #expect(try answers(proxy) == ["main"]) }
            }
            try withTProxy(["--canary-router", canary.command, "--canary", "0%"], router: main.command) {
                (proxy) throws in
                #expect(try answers(proxy, 10) == ["main"])
            }
        }

        @Test("the canary's share are so many of the addresses, and one address goes the same way each time")
        func share() throws {
            let (main, canary) = (ScriptFile(), ScriptFile())
            try main.write("main")
            try canary.write("canary")
            try withTProxy(["--canary-router", canary.command, "--canary", "30%"], router: main.command) { proxy in
                try proxy.process.line(with: "1 (canary) is ready")
                let hosts = (0..<200).map { UInt32(0x7f01_0000) + UInt32($0) &* 331 % 65_521 + 1 }
                func answers() throws -> [String] {
                    let clients = try hosts.map { host in
                        let client = try Peer(port: proxy.port, from: host)
                        try client.send("?\n")
                        return client
                    }
                    return try clients.map { try $0.text() }
                }
                let first = try answers()
                #expect(Set(first) == ["main", "canary"])
                let count = first.count { $0 == "canary" }
                // More than three standard deviations to each side.
                #expect((40...80).contains(count), "\(count) of 200")
                #expect(try answers() == first)
                #expect(try proxy.sum(.canaryQuestions) == UInt64(2 * count) && proxy.sum(.canaryFailures) == 0)
            }
        }

        @Test(
            "a canary's errors, bad verdicts and silence are the main router's to answer",
            arguments: ["error", "bad", "silence"])
        func canaryFails(how: String) throws {
            let (main, canary) = (ScriptFile(), ScriptFile())
            try main.write("main")
            let before =
                switch how {
                case "error":
                    #"if message["method"] == "proxy": print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": {"code": 1, "message": "no"}}), flush=True); continue"#
                case "bad":
                    #"if message["method"] == "proxy": print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {"remot": 1}}), flush=True); continue"#
                default: #"if message["method"] == "proxy": continue"#
                }
            try canary.write("canary", before: before)
            try withTProxy(
                ["--canary-router", canary.command, "--canary", "100%", "--router-timeout", "0.5"],
                router: main.command
            ) { proxy in
                try proxy.process.line(with: "1 (canary) is ready")
                for _ in 0..<3 { #expect(try answers(proxy) == ["main"]) }
            }
        }

        @Test(
            "what a canary cannot say of a remote's failure is the main router's to say", arguments: ["error", "bad"])
        func canaryFailsAtFailure(how: String) throws {
            let (main, canary) = (ScriptFile(), ScriptFile())
            let hello = #"{"protocol": 1, "methods": ["proxy", "proxy_error"]}"#
            let answer = how == "bad" ? #""result": {"remot": 1}"# : #""error": {"code": 1, "message": "no"}"#
            try main.write("main", hello: hello)
            try canary.write(
                "canary", hello: hello,
                before: """
                    if message["method"] in ("proxy", "proxy_error"):
                            begin = '{"jsonrpc": "2.0", "id": %d, ' % message["id"]
                            remote = '"result": {"remote": "127.0.0.1:1"}}'
                            failure = '\(answer)}'
                            print(begin + (remote if message["method"] == "proxy" else failure), flush=True)
                            continue
                    """)
            try withTProxy(["--canary-router", canary.command, "--canary", "100%"], router: main.command) { proxy in
                try proxy.process.line(with: "1 (canary) is ready")
                #expect(try answers(proxy, 3) == ["main"])
            }
        }

        @Test("a canary that cannot be started is no failure to boot")
        func noCanary() throws {
            let main = ScriptFile()
            try main.write("main")
            try withTProxy(
                ["--canary-router", "/nowhere/at/all", "--canary", "50%", "--shadow-router", "unix:/nowhere/at/all"],
                router: main.command
            ) { proxy in
                #expect(try answers(proxy, 5) == ["main"])
                try proxy.process.line(with: "(canary) did not come up")
            }
        }

        @Test("a shadow is asked the same, and the log says where it differs; what it does otherwise matters to nobody")
        func shadow() throws {
            let (main, shadow) = (ScriptFile(), ScriptFile())
            try main.write("main")
            try shadow.write("main")
            try withTProxy(["--shadow-router", shadow.command, "--router-timeout", "0.5"], router: main.command) {
                proxy in
                try proxy.process.line(with: "(shadow) is ready")
                #expect(try answers(proxy, 10) == ["main"])
                #expect(!proxy.process.text.contains("the shadow close"))
                try shadow.write("another answer")
                proxy.process.signal(SIGHUP)
                try proxy.process.line(with: "reloaded: ")
                try Deadline(in: patience).until("a difference") { () throws in
                    #expect(try answers(proxy) == ["main"])
                    return proxy.process.text.contains(
                        "the router says close with 4 bytes, the shadow close with 14 bytes")
                }
                for before in ["os._exit(1)", "time.sleep(1000)", #"if message["method"] == "proxy": continue"#] {
                    try shadow.write("x", before: before)
                    proxy.process.signal(SIGHUP)
                    for _ in 0..<10 { #expect(try answers(proxy, 3) == ["main"]) }
                }
            }
        }

        @Test("a shadow that has no room is left out, and what is asked, left out, different and failed is counted")
        func shadowLeftOut() throws {
            let (main, shadow) = (ScriptFile(), ScriptFile())
            let (asked, go) = ("\(shadow.folder.path)/asked", "\(shadow.folder.path)/go")
            try main.write("main")
            try shadow.write(
                "shadow", hello: #"{"protocol": 1, "methods": ["proxy"], "max_in_flight": 2}"#,
                before: """
                    if message["method"] == "proxy":
                            open("\(asked)", "w").close()
                            while not os.path.exists("\(go)"):
                                time.sleep(0.01)
                    """)
            try withTProxy(["--shadow-router", shadow.command, "--router-timeout", "60"], router: main.command) {
                proxy in
                func expect(_ asked: UInt64, _ leftOut: UInt64, _ different: UInt64, _ failed: UInt64) throws {
                    let counts = try [.shadowQuestions, .shadowsLeftOut, .shadowDifferences, .shadowFailures]
                        .map { try proxy.sum($0) }
                    #expect(counts == [asked, leftOut, different, failed])
                }
                try proxy.process.line(with: "(shadow) is ready")
                // It answers nothing, and that is nobody's business.
                #expect(try answers(proxy, 10) == ["main"])
                try expect(2, 8, 0, 0)
                _ = try shadow.folder.file("go")
                try Deadline(in: patience).until("both differences") { try proxy.sum(.shadowDifferences) == 2 }
                try expect(2, 8, 2, 0)
                // It has room again; and what it has open when it dies has failed.
                unlink(go)
                unlink(asked)
                #expect(try answers(proxy, 1) == ["main"])
                try Deadline(in: patience).until("it is asked") { access(asked, F_OK) == 0 }
                let worker = try proxy.worker()
                let router = try #require(
                    proxy.routers(of: worker).first { try Proc.text("\($0)/cmdline").contains(shadow.path) })
                kill(router, SIGKILL)
                try Deadline(in: patience).until("its failure") { try proxy.sum(.shadowFailures) == 1 }
                try expect(3, 8, 2, 1)
            }
        }
    }
}
