import Control
import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// What routers do wrong over time: each has its outcome, its line in the log and its bound.
    @Suite struct RoutersFaulty {
        private func served(_ proxy: TProxy, _ data: String = "?") throws {
            let client = try proxy.client(data)
            #expect(try client.text() == "served")
        }

        @Test("an answer that comes after its time is nobody's")
        func late() throws {
            let script = ScriptFile()
            try script.write(
                "served",
                before: """
                    late = message["method"] == "proxy" and message["params"]["data"] == "late\\n"
                        if late:
                            import threading
                            text = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {"close": "too late"}})
                            threading.Timer(0.7, lambda: (print(text, flush=True), print("it is out", file=sys.stderr))).start()
                            continue
                    """)
            try withTProxy(["--router-timeout", "0.4"], router: script.command) { proxy in
                let first = proxy.routers(of: try proxy.worker())
                let late = try proxy.client("late")
                try served(proxy)
                #expect(try late.text() == "")
                #expect(try proxy.access(late)["reason"] == "router_timeout")
                try proxy.process.line(with: "it is out")
                for _ in 0..<5 { try served(proxy) }
                #expect(proxy.routers(of: try proxy.worker()) == first)
            }
        }

        @Test("a question is waited for as long as its router says, and one of which it says nothing is not")
        func progress() throws {
            let script = ScriptFile()
            try script.write(
                "served",
                before: """
                    text = message.get("params", {}).get("data")
                        say = lambda **what: print(json.dumps({"jsonrpc": "2.0", **what}), flush=True)
                        if text in ("slow\\n", "late\\n"):
                            held = globals().setdefault("held", {})
                            held[text] = message["id"]
                            if text == "slow\\n":
                                say(method="progress", params={"id": message["id"], "seconds": 60})
                            continue
                        if text == "now\\n":
                            for name in ("late\\n", "slow\\n"):
                                say(id=held[name], result={"close": "at last"})
                    """)
            try withTProxy(["--router-timeout", "0.6"], router: script.command) { proxy in
                let slow = try proxy.client("slow")
                let late = try proxy.client("late")
                // One that answers others is not stuck.
                try served(proxy)
                #expect(try late.text() == "")
                #expect(try proxy.access(late)["reason"] == "router_timeout")
                try served(proxy, "now")
                #expect(try slow.text() == "at last")
                let line = try proxy.access(slow)
                #expect(line["reason"] == "closed" && line.number("verdict_ms") > 600, "\(line)")
                try Deadline(in: patience).until("the count") { try proxy.sum(.lateAnswers) == 1 }
            }
        }

        @Test("no progress takes a question beyond the time for all questions of its client")
        func progressWithoutEnd() throws {
            let script = ScriptFile()
            try script.write(
                "served",
                before: """
                    if message.get("params", {}).get("data") == "slow\\n":
                            print(json.dumps({"jsonrpc": "2.0", "method": "progress", "params": {"id": message["id"], "seconds": 60}}), flush=True)
                            continue
                    """)
            try withTProxy(["--router-timeout", "0.4", "--verdict-timeout", "0.9"], router: script.command) { proxy in
                let slow = try proxy.client("slow")
                #expect(try slow.text() == "")
                let line = try proxy.access(slow)
                // Both end in the same moment.
                #expect(["verdict_timeout", "router_timeout"].contains(line["reason"]), "\(line)")
                #expect(line.number("duration_ms") > 800 && line.number("duration_ms") < 10_000, "\(line)")
                try served(proxy)
            }
        }

        @Test(
            "a router that is stuck for good is replaced, and nobody but who stops it loses by it",
            arguments: ["time.sleep(1000)", "exec('while True: pass')"])
        func stuck(how: String) throws {
            let script = ScriptFile()
            try script.write(
                "served", before: #"if message.get("params", {}).get("data") == "stop\n": \#(how)"#)
            try withTProxy(["--router-timeout", "0.4"], router: script.command) { proxy in
                let before = try (0..<10).map { _ in try proxy.client("?") }
                let guilty = try proxy.client("stop")
                let after = try (0..<10).map { _ in try proxy.client("?") }
                for client in before + after { #expect(try client.text() == "served") }
                #expect(try guilty.text() == "")
                #expect(try proxy.access(guilty)["reason"] == "poison")
                try proxy.process.line(with: "was asked and wrote nothing for 400 ms")
                try served(proxy)
                try Deadline(in: patience).until("one router") { proxy.routers(of: try proxy.worker()).count == 1 }
            }
        }

        @Test(
            "a router that closes its input is waited for, since its output is the same socket; one that closes both is not",
            arguments: [
                ("os.close(0)", "0.6", "was asked and wrote nothing for 600 ms"),
                // Longer than anybody waits here: it is not this that ends it.
                ("os.close(0); os.close(1)", "60", "closed its socket"),
            ])
        func closes(how: String, timeout: String, words: String) throws {
            let script = ScriptFile()
            let flag = "\(script.folder.path)/closed"
            try script.write(
                "served",
                before: """
                    if message["method"] == "proxy" and not os.path.exists("\(flag)"):
                            open("\(flag)", "w").close()
                            \(how)
                            time.sleep(1000)
                    """)
            try withTProxy(["--router-timeout", timeout], router: script.command) { proxy in
                let first = try #require(proxy.routers(of: try proxy.worker()).first)
                try served(proxy)
                try proxy.process.line(with: "router 1 \(words); 1 question was open, to be put to the next router")
                try served(proxy)
                try Deadline(in: patience).until("its end") { !Proc.isAlive(first) }
            }
        }

        @Test("a router that has closed its input and reads by another name of the socket goes on")
        func closesInputAlone() throws {
            try withTProxy { proxy in
                let first = proxy.routers(of: try proxy.worker())
                for first in [#""do": "close input", "#, ""] {
                    let client = try proxy.client("{\(first)" + #""answer": {"close": "served"}}"#)
                    #expect(try client.text() == "served")
                }
                #expect(proxy.routers(of: try proxy.worker()) == first)
            }
        }

        @Test(
            "a router that ends right after it has answered has said all it wrote, whatever came beside the lines",
            arguments: [10, 1])
        func parts(lines: Int) throws {
            let folder = Folder()
            let count = 60
            let environment = [
                "PARTING": folder.path, "PARTING_COUNT": "\(count)", "PARTING_LINES": "\(lines)",
                "PASSED": try folder.file("file", "passed\n"),
            ]
            try withTProxy(router: Repository.python("parting.py"), environment: environment) { proxy in
                let worker = try proxy.worker()
                let router = try #require(proxy.routers(of: worker).first)
                let clients = try (0..<count).map { _ in try proxy.client("?") }
                try proxy.process.line(with: "has been asked all")
                // What it writes is read only once it has ended: the worst case.
                kill(worker, SIGSTOP)
                defer { kill(worker, SIGCONT) }
                _ = try folder.file("go")
                try Deadline(in: patience).until("its end") { !Proc.isAlive(router) }
                kill(worker, SIGCONT)
                var answers: [String: Int] = [:]
                for client in clients { answers[try client.text(), default: 0] += 1 }
                let passed = count / lines
                #expect(answers == ["passed\n": passed, "said": count - passed].filter { $0.value > 0 })
                try proxy.process.line(with: "router 1 exited with status 0; no question was open")
            }
        }

        @Test(
            "a router that comes up no more is tried after ever longer pauses, and clients wait for it as long as for any",
            arguments: [false, true])
        func crashesInALoop(mended: Bool) throws {
            let script = ScriptFile()
            try script.write("served")
            try withTProxy(mended ? [] : ["--verdict-timeout", "0.6"], router: script.command) { proxy in
                try served(proxy)
                let worker = try proxy.worker()
                let router = try #require(proxy.routers(of: worker).first)
                try "import sys; sys.exit('broken on purpose')".write(
                    toFile: script.path, atomically: false, encoding: .utf8)
                let before = try Proc.ticks(worker)
                let time = try seconds { () throws in
                    kill(router, SIGKILL)
                    let waiting = try proxy.client("?")
                    let pauses = try proxy.process.wait(for: "the third pause") { lines in
                        let all = lines.compactMap { $0.firstMatch(of: /next try (?:to start a router )?in (\d+) ms/) }
                        return all.count >= 3 ? all.compactMap { Int($0.1) } : nil
                    }
                    #expect(pauses.prefix(3) == [100, 200, 400])
                    // One line for each that has come to nothing.
                    let failures = proxy.process.lines.count { $0.contains("did not come up") }
                    #expect((3...5).contains(failures), "\(proxy.process.text)")
                    if mended {
                        try script.write("served")
                        #expect(try waiting.text() == "served")
                        try served(proxy)
                    } else {
                        #expect(try waiting.text() == "")
                        let access = try proxy.access(waiting)
                        #expect(access["reason"] == "no_router", "\(access)")
                        #expect(access.number("duration_ms") > 550 && access.number("duration_ms") < 3000, "\(access)")
                    }
                }
                let used = try Double(Proc.ticks(worker) - before) / 100
                #expect(used < 0.3 * time, "\(used) s of CPU in \(time) s")
                #expect(try proxy.worker() == worker)
                // The listener is still there.
                _ = try proxy.client()
            }
        }

        @Test("garbage now and then is logged and skipped, however much of it there is in time")
        func garbage() throws {
            let script = ScriptFile()
            try script.write("served", before: #"print("{broken", "\xff", flush=True)"#)
            try withTProxy(router: script.command) { proxy in
                let first = proxy.routers(of: try proxy.worker())
                for _ in 0..<40 { try served(proxy) }
                #expect(proxy.routers(of: try proxy.worker()) == first)
                // At most a line a second.
                #expect((1...20).contains(proxy.process.lines.count { $0.contains("what cannot be understood") }))
            }
        }

        @Test("what a router has forked goes with it, though it holds the socket")
        func forks() throws {
            let script = ScriptFile()
            try script.write(
                "served",
                before: """
                    if message["method"] == "hello":
                            child = os.fork()
                            if child == 0:
                                time.sleep(1000)
                            print("child", child, file=sys.stderr, flush=True)
                    """)
            try withTProxy(router: script.command) { proxy in
                let worker = try proxy.worker()
                let router = try #require(proxy.routers(of: worker).first)
                let line = try proxy.process.line(with: "child ")
                let child = try #require(line.split(separator: " ").last.flatMap { pid_t($0) })
                #expect(Proc.isAlive(child))
                kill(router, SIGKILL)
                try served(proxy)
                try Deadline(in: patience).until("the child's end") { !Proc.isAlive(child) }
            }
        }

        @Test("one that ignores its end of input and TERM is killed, and nobody waits for that")
        func stubborn() throws {
            let script = ScriptFile()
            try script.write(
                "served",
                before: """
                    if message["method"] == "hello":
                            import atexit, signal
                            signal.signal(signal.SIGTERM, signal.SIG_IGN)
                            atexit.register(time.sleep, 1000)
                    """)
            try withTProxy(router: script.command) { proxy in
                let router = try #require(proxy.routers(of: try proxy.worker()).first)
                try script.write("served")
                proxy.process.signal(SIGHUP)
                try proxy.process.line(with: "reloaded: ")
                try served(proxy)
                try proxy.process.line(with: "did not leave when told to: TERM", within: 20)
                try served(proxy)
                try proxy.process.line(with: "did not leave at TERM: KILL", within: 20)
                try Deadline(in: patience).until("its end") { !Proc.isAlive(router) }
            }
        }

        @Test(
            "a router that reads nothing is not written to without bound, costs no CPU, and is replaced",
            arguments: [false, true])
        func readsNothing(isDeaf: Bool) throws {
            let script = ScriptFile()
            let flag = "\(script.folder.path)/slept"
            // It ends its reading side when no more fits into it, and then makes room: what is written to it fails.
            let deaf = try script.folder.file(
                "deaf.py",
                """
                import array, fcntl, socket, termios
                waiting, before = array.array("i", [0]), -1
                while waiting[0] == 0 or waiting[0] != before:
                    before = waiting[0]
                    time.sleep(0.05)
                    fcntl.ioctl(0, termios.FIONREAD, waiting)
                one = socket.socket(fileno=os.dup(0))
                one.shutdown(socket.SHUT_RD)
                while one.recv(1 << 20):
                    pass
                print("it is deaf", file=sys.stderr, flush=True)
                """)
            // It takes more at once than come: what bounds the memory is that it does not read.
            try script.write(
                "served", hello: #"{"protocol": 1, "methods": ["proxy"], "max_in_flight": 1000}"#,
                before: """
                    if message["method"] == "proxy" and not os.path.exists("\(flag)"):
                            open("\(flag)", "w").close()
                            \(isDeaf ? "exec(open('\(deaf)').read())" : "pass")
                            time.sleep(1000)
                    """)
            // A debug build on a busy machine takes seconds to write so much. To find a deaf one it takes less.
            let (timeout, count) = isDeaf ? ("1.5", 20) : ("3", 100)
            try withTProxy(["--router-timeout", timeout], router: script.command) { proxy in
                let worker = try proxy.worker()
                let memory = try Proc.kilobytes(worker, "VmHWM")
                // Six characters for each byte: all questions together are 36 MB.
                let data = String(repeating: "\u{1}", count: 60_000)
                let clients = try (0..<count).map { _ in try proxy.client(data) }
                if isDeaf {
                    try proxy.process.line(with: "it is deaf")
                } else {
                    try Deadline(in: patience).until("all to wait") {
                        try proxy.sum(.openQuestions) + proxy.sum(.waitingQuestions) == UInt64(count)
                    }
                }
                let ticks = try Proc.ticks(worker)
                try proxy.process.line(with: "was asked and wrote nothing")
                #expect(try Proc.ticks(worker) - ticks < (isDeaf ? 60 : 20))
                for client in clients { #expect(try client.text(within: 30) == "served") }
                // The next one is asked all of them at once: no more of that is written than it reads. What the clients have sent
                // is 6 MB.
                #expect(try Proc.kilobytes(worker, "VmHWM") - memory < 14_000)
            }
        }

        @Test("a router that does not read what it must be told is replaced, and the next one is told")
        func unread() throws {
            let folder = Folder()
            let origin = try Origin.echo()
            let environment = ["UNREAD": "\(folder.path)/first", "REMOTE": origin.address, "UNREAD_COUNT": "40"]
            try withTProxy(
                ["--router-timeout", "30"], router: Repository.python("unread.py"), environment: environment
            ) { proxy in
                let clients = try (0..<40).map { _ in try proxy.client("rewrite") }
                try proxy.process.line(with: "has been asked all")
                // More than its socket holds, though it may be asked when the first piece of each has come.
                let large = try (0..<10).map { _ in try proxy.client(String(repeating: "\u{1}", count: 60_000)) }
                let line = try proxy.process.line(with: "router 1 does not read")
                let bytes = try #require(line.firstMatch(of: /(\d+) bytes wait for it that are no questions/)?.1)
                #expect(try #require(Int(bytes)) > 1_048_576)
                try proxy.process.line(with: "router 1 did not read")
                for client in clients { #expect(try client.text() == "REWRITE\n") }
                for client in large { #expect(try client.text() == "served") }
            }
        }

        @Test("a router that says hello and nothing else, and one that never says anything, at the first start")
        func silentStart() throws {
            let script = ScriptFile()
            try script.write("served", before: #"if message["method"] == "proxy": continue"#)
            let origin = try Origin()
            try withTProxy(["--router-timeout", "0.3", "--fallback", origin.address], router: script.command) { proxy in
                let client = try proxy.client("?")
                // Alone, twice: it might be its fault, so it does not go to the fallback.
                #expect(try client.text() == "")
                #expect(try proxy.access(client)["reason"] == "poison")
                #expect(!origin.hasVisitor)
            }
        }

        @Test("the Python package serves many workers from one process, and brings its state along")
        func pythonListens() throws {
            let folder = Folder()
            let path = "\(folder.path)/route.sock"
            let script = try folder.file(
                "shared.py",
                """
                import sys
                sys.path.insert(0, "\(Repository.root)routers/python")
                import tproxy
                seen = []
                def proxy(data):
                    seen.append(data)
                    return {"close": str(len(seen))}
                print("starting", file=sys.stderr, flush=True)
                tproxy.run(proxy, listen="\(path)")
                """)
            let router = try Subprocess(["python3", script])
            try router.line(with: "starting")
            try withTProxy(["-w", "2"], router: "unix:\(path)") { proxy in
                for number in 1...20 {
                    let client = try proxy.client("?")
                    #expect(try client.text() == "\(number)")
                }
                proxy.process.signal(SIGHUP)
                try proxy.process.line(with: "reloaded: ")
                let client = try proxy.client("?")
                #expect(try client.text() == "21")
            }
        }
    }
}
