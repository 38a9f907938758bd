import Control
import Foundation
import Glibc
import Testing

/// A router's file that a test writes anew, and the answers that clients get meanwhile.
struct ScriptFile {
    let folder = Folder()
    var path: String { "\(folder.path)/route.py" }
    var command: String { "python3 -S \(path)" }

    /// A router that answers every question by closing with this text; `before` runs for each line, with `message`.
    func write(_ answer: String, hello: String = #"{"protocol": 1, "methods": ["proxy"]}"#, before: String = "pass")
        throws
    {
        _ = try folder.file(
            "route.py",
            """
            import json, os, sys, time
            for line in sys.stdin:
                message = json.loads(line)
                \(before)
                if message.get("method") == "hello":
                    result = \(hello)
                else:
                    result = {"close": "\(answer)"}
                if "id" in message:
                    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
            """)
    }

    func answer(_ proxy: TProxy) throws -> String {
        let client = try proxy.client("?")
        return try client.text()
    }
}

extension IntegrationTests {
    /// Routers that are replaced while clients come.
    @Suite struct RoutersReplacing {
        @Test(
            "a new router that dies of its first question, has another protocol or answers nothing leaves the old one",
            arguments: [
                (#"{"protocol": 1}"#, #"if message["method"] == "proxy": os._exit(7)"#, "exited with status 7"),
                (#"{"protocol": 2}"#, "pass", "protocol"),
                (#"{"protocol": 1}"#, "time.sleep(60)", "hello"),
            ])
        func brokenReload(hello: String, before: String, words: String) throws {
            let script = ScriptFile()
            try script.write("old")
            try withTProxy(router: script.command) { proxy in
                let first = proxy.routers(of: try proxy.worker())
                try script.write("new", hello: hello, before: before)
                proxy.process.signal(SIGHUP)
                let failed = Deadline(in: patience)
                var isOver = false
                while !isOver, !failed.isOver {
                    #expect(try script.answer(proxy) == "old")
                    isOver = proxy.process.lines.contains { $0.contains("reload failed") }
                }
                try proxy.process.line(with: "reload failed")
                try proxy.process.line(with: words)
                #expect(proxy.process.lines.count { $0.contains("reload failed") } == 1)
                #expect(try proxy.sum(.reloadsFailed) == 1)
                #expect(try script.answer(proxy) == "old")
                #expect(proxy.routers(of: try proxy.worker()).first == first.first)
                try script.write("good")
                proxy.process.signal(SIGHUP)
                try Deadline(in: patience).until("the good one") { try script.answer(proxy) == "good" }
                try proxy.process.line(with: "reloaded: ")
                #expect(try proxy.sum(.reloadsFailed) == 1)
            }
        }

        @Test("after a reload that failed the old router is asked again about what it wants to be asked about")
        func wishesComeBack() throws {
            let script = ScriptFile()
            try script.write("old", hello: #"{"protocol": 1, "methods": ["proxy"], "events": ["connect"]}"#)
            try withTProxy(router: script.command) { proxy in
                #expect(try proxy.client().text() == "old")
                try script.write("new", before: #"if message.get("method") == "proxy": os._exit(3)"#)
                proxy.process.signal(SIGHUP)
                try proxy.process.line(with: "router 2 is ready")
                #expect(try script.answer(proxy) == "old")
                try proxy.process.line(with: "reload failed")
                // Without a byte: for clients whose servers speak first.
                #expect(try proxy.client().text() == "old")
            }
        }

        @Test("while a worker's router is stuck most clients go to the others, and nobody is lost")
        func stuckBesideOthers() throws {
            try withTProxy(["-w", "2", "--router-timeout", "5"]) { proxy in
                try proxy.process.line(with: "router 1 is ready", count: 2)
                kill(try #require(proxy.routers(of: try proxy.worker()).first), SIGSTOP)
                let order = #"{"answer": {"close": "served"}}"#
                let clients = try (0..<800).map { _ in try proxy.client(order) }
                let soon = Deadline(in: 3)
                // As many as it is asked at once wait for the stuck one, as many again behind them.
                let served = clients.count { soon.wait(for: $0.raw, POLLIN) }
                #expect(served > 600 && served < 800, "\(served)")
                for client in clients { #expect(try client.text(within: 30) == "served") }
            }
        }

        @Test("a router that dies is one line in the log, which says of what")
        func ends() throws {
            try withTProxy { proxy in
                let worker = try proxy.worker()
                for round in 1...20 {
                    let client = try proxy.client(#"{"answer": {"close": "served"}}"#)
                    #expect(try client.text() == "served")
                    kill(try #require(proxy.routers(of: worker).first), SIGKILL)
                    try proxy.process.line(with: "was ended by signal 9", count: round)
                }
                #expect(!proxy.process.text.contains("closed its socket"))
                // One that lives on has only closed it.
                let client = try proxy.client(#"{"do": "end"}"#)
                try proxy.process.line(with: "closed its socket; 1 question was open")
                #expect(try client.text() == "")
            }
        }

        @Test("a new router that ends by itself in its first second, unasked, leaves the old one")
        func shortLife() throws {
            let script = ScriptFile()
            try script.write("old")
            try withTProxy(router: script.command) { proxy in
                let first = proxy.routers(of: try proxy.worker())
                try script.write(
                    "new", before: #"import threading; threading.Timer(0.3, os._exit, [3]).start()"#)
                proxy.process.signal(SIGHUP)
                try proxy.process.line(with: "reload failed")
                try proxy.process.line(with: "decides again")
                #expect(try script.answer(proxy) == "old")
                #expect(proxy.routers(of: try proxy.worker()) == first)
            }
        }

        @Test(
            "with --reload a changed file does what HUP does, also one beside the script; a broken one changes nothing")
        func reloadOnChange() throws {
            let script = ScriptFile()
            try script.write("old")
            try withTProxy(["--reload"], router: script.command) { proxy in
                #expect(try script.answer(proxy) == "old")
                try script.write("new")
                try Deadline(in: patience).until("the new answer") { try script.answer(proxy) == "new" }
                _ = try script.folder.file("beside.py", "")
                try proxy.process.line(with: "beside.py has changed")
                try proxy.process.line(with: "reloaded: ", count: 2)
                try script.write("broken", before: "sys.exit(1)")
                try proxy.process.line(with: "reload failed")
                #expect(try script.answer(proxy) == "new")
                _ = try script.folder.file("notes.txt", "")
                try script.write("mended")
                try Deadline(in: patience).until("the mended one") { try script.answer(proxy) == "mended" }
                #expect(!proxy.process.text.contains("notes.txt"))
            }
        }

        @Test("a client whose bytes kill routers is found among two hundred others, which are all served")
        func poison() throws {
            try withTProxy { proxy in
                let held = try (0..<200).map { index in
                    try proxy.client(#"{"answer": {"close": "served \#(index)"}}"#)
                }
                let guilty = try proxy.client(#"{"do": "exit"}"#)
                let later = try (0..<50).map { _ in try proxy.client(#"{"answer": {"close": "served"}}"#) }
                for (index, client) in held.enumerated() { #expect(try client.text() == "served \(index)") }
                for client in later { #expect(try client.text() == "served") }
                #expect(try guilty.text() == "")
                #expect(try proxy.access(guilty)["reason"] == "poison")
                try proxy.process.line(with: "routers die of it")
                let deaths = proxy.process.lines.count { $0.contains("exited with status 1") }
                #expect((2...4).contains(deaths), "\(deaths)")
            }
        }

        @Test("and it is found while the questions of all two hundred are open at the router that it kills")
        func poisonAmongOpen() throws {
            // The first one answers nobody, so that all are open when the guilty one comes, and says how many it takes along.
            let folder = Folder()
            let script = try folder.file(
                "holding.py",
                """
                import json, os, sys
                held, is_first = 0, not os.path.exists(__file__ + ".died")
                for line in sys.stdin:
                    message = json.loads(line)
                    if message.get("method") == "hello":
                        result = {"protocol": 1, "methods": ["proxy"], "max_in_flight": 1000}
                    else:
                        result = {"close": message["params"]["data"].strip()}
                        if result["close"] == "poison":
                            print("took", held, "along", file=sys.stderr)
                            open(__file__ + ".died", "w").close()
                            os._exit(1)
                        held += 1
                        if is_first:
                            continue
                    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
                """)
            try withTProxy(router: "python3 -S \(script)") { proxy in
                let held = try (0..<200).map { try proxy.client("served \($0)") }
                let guilty = try proxy.client("poison")
                for (index, client) in held.enumerated() { #expect(try client.text() == "served \(index)") }
                #expect(try guilty.text() == "")
                #expect(try proxy.access(guilty)["reason"] == "poison")
                try proxy.process.line(with: "took 200 along")
                let deaths = proxy.process.lines.count { $0.contains("exited with status 1") }
                #expect((2...4).contains(deaths), "\(deaths)")
            }
        }

        @Test("the guilty never go to the fallback; several of them are found at the same time")
        func guiltyTogether() throws {
            let origin = try Origin()
            try withTProxy(["--fallback", origin.address]) { proxy in
                let guilty = try (0..<3).map { _ in try proxy.client(#"{"do": "exit"}"#) }
                let held = try (0..<60).map { _ in try proxy.client(#"{"answer": {"close": "served"}}"#) }
                for client in held { #expect(try client.text() == "served") }
                for client in guilty { #expect(try client.text() == "") }
                for client in guilty { #expect(try proxy.access(client)["reason"] == "poison") }
                #expect(!origin.hasVisitor)
            }
        }

        @Test("routers that are killed and stopped while clients come cost nobody an answer")
        func killedUnderLoad() throws {
            try withTProxy(["--router-timeout", "1"]) { proxy in
                let worker = try proxy.worker()
                for round in 0..<12 {
                    let clients = try (0..<25).map { _ in try proxy.client(#"{"answer": {"close": "served"}}"#) }
                    if let router = proxy.routers(of: worker).first {
                        kill(router, round % 6 == 5 ? SIGSTOP : SIGKILL)
                    }
                    let more = try (0..<25).map { _ in try proxy.client(#"{"answer": {"close": "served"}}"#) }
                    for client in clients + more { #expect(try client.text() == "served") }
                }
            }
        }
    }
}
