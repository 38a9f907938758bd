import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// Routers behind sockets, and several of them.
    @Suite struct RoutersOutside {
        private func router(_ path: String, user: String? = nil) throws -> Subprocess {
            let process = try Subprocess(
                ["python3", "-S", Repository.router("listening.py"), path] + (user.map { [$0] } ?? []))
            try process.line(with: "listening")
            return process
        }

        @Test("a router that is not there yet is no failure to boot: clients wait for it, and two workers share it")
        func absent() throws {
            let folder = Folder()
            let path = "\(folder.path)/route.sock"
            try withTProxy(["-w", "2"], router: "unix:\(path)") { proxy in
                let early = try (0..<10).map { _ in try proxy.client(#"{"close": "pid"}"#) }
                try proxy.process.line(with: "cannot be reached: No such file or directory")
                let router = try router(path)
                for client in early { #expect(try client.text() == "\(router.pid)") }
                for _ in 0..<20 {
                    let client = try proxy.client(#"{"close": "pid count"}"#)
                    #expect(try client.text().hasPrefix("\(router.pid) "))
                }
                try Deadline(in: patience).until("both workers") {
                    let client = try proxy.client(#"{"close": "count"}"#)
                    return try client.text() == "2"
                }
                // No process of it is ours.
                for worker in proxy.workers { #expect(proxy.routers(of: worker).isEmpty) }
            }
        }

        @Test(
            "a client that waits for a router that is not there yet is asked about at connect and in silence",
            arguments: [
                "connect", "silence",
            ])
        func absentWithWishes(event: String) throws {
            let folder = Folder()
            let path = "\(folder.path)/route.sock"
            try withTProxy(["--silence", "100"], router: "unix:\(path)") { proxy in
                let early = try proxy.client()
                try proxy.process.line(with: "cannot be reached: No such file or directory")
                let router = try Subprocess(
                    ["python3", "-S", Repository.router("listening.py"), path], environment: ["LISTENING_EVENT": event])
                #expect(try early.text() == event)
                _ = router
            }
        }

        @Test("its death costs nobody an answer: what was asked is asked again when it is back")
        func comesBack() throws {
            let folder = Folder()
            let path = "\(folder.path)/route.sock"
            var first: Subprocess? = try router(path)
            try withTProxy(["--router-timeout", "10"], router: "unix:\(path)") { proxy in
                let origin = try Origin()
                let client = try proxy.client(#"{"remote": "\#(origin.address)"}"#)
                let server = try origin.accept()
                try server.expect(#"{"remote": "\#(origin.address)"}"# + "\n")
                let hung = try (0..<5).map { _ in try proxy.client(#"{"do": "hang at first", "close": "pid replay"}"#) }
                // All have been asked when one that comes after them has its answer.
                let last = try proxy.client(#"{"close": "replay"}"#)
                #expect(try last.text() == "0")
                if let pid = first?.pid { kill(pid, SIGKILL) }
                first = nil
                try proxy.process.line(with: "closed its socket; 5 questions were open, to be put to the next router")
                let waiting = try proxy.client(#"{"close": "pid replay"}"#)
                let second = try router(path)
                #expect(try waiting.text() == "\(second.pid) 0")
                for one in hung { #expect(try one.text() == "\(second.pid) 1") }
                try client.send("still here")
                try server.expect("still here")
            }
        }

        @Test("HUP connects anew before it lets go")
        func reload() throws {
            let folder = Folder()
            let path = "\(folder.path)/route.sock"
            let first = try router(path)
            try withTProxy(router: "unix:\(path)") { proxy in
                let client = try proxy.client(#"{"close": "count"}"#)
                #expect(try client.text() == "1")
                proxy.process.signal(SIGHUP)
                try proxy.process.line(with: "reloaded: ")
                let second = try proxy.client(#"{"close": "pid count"}"#)
                #expect(try second.text() == "\(first.pid) 2")
                // With nobody there the old connection stays.
                unlink(path)
                proxy.process.signal(SIGHUP)
                try proxy.process.line(with: "reload failed")
                let third = try proxy.client(#"{"close": "count"}"#)
                #expect(try third.text() == "2")
            }
        }

        @Test("nobody there at all: the fallback, after the wait at first, then at once")
        func fallback() throws {
            let folder = Folder()
            let origin = try Origin()
            try withTProxy(
                ["--fallback", origin.address, "--router-timeout", "0.3"], router: "unix:\(folder.path)/none.sock"
            ) { proxy in
                let client = try proxy.client("hello")
                let server = try origin.accept()
                try server.expect("hello")
                client.close()
                // Each of these would wait 0.3 s by itself.
                let begin = Date()
                for number in 0..<20 {
                    let client = try proxy.client("\(number)")
                    let server = try origin.accept()
                    try server.expect("\(number)")
                    client.close()
                }
                #expect(Date().timeIntervalSince(begin) < 3)
                // Back again: it decides.
                let router = try router("\(folder.path)/none.sock")
                try Deadline(in: patience).until("the router") { () throws in
                    let client = try proxy.client(#"{"close": "pid"}"#)
                    if let server = try? origin.accept(within: 0.5) {
                        server.close()
                        client.close()
                        return false
                    }
                    return try client.text() == "\(router.pid)"
                }
            }
        }

        @Test("nobody there and nowhere else to go: closed when the client's time is up, and the logs say why")
        func nobody() throws {
            let folder = Folder()
            try withTProxy(
                ["--verdict-timeout", "0.4", "--router-timeout", "0.2"], router: "unix:\(folder.path)/none.sock"
            ) { proxy in
                let client = try proxy.client("hello")
                #expect(try client.ending() == .end)
                #expect(try proxy.access(client)["reason"] == "no_router")
                try proxy.process.line(with: "no verdict: there is no router")
            }
        }

        @Test("a socket of a user whom nobody trusts is not asked", .enabled(if: geteuid() == 0))
        func stranger() throws {
            let folder = Folder()
            chmod(folder.path, 0o777)
            let path = "\(folder.path)/route.sock"
            let router = try router(path, user: "65534")
            try withTProxy(router: "unix:\(path)") { proxy in
                try proxy.process.line(with: "belongs to user 65534")
                // Whom the folder belongs to decides what is in it.
                chown(folder.path, 65_534, 65_534)
                let client = try proxy.client(#"{"close": "pid"}"#)
                #expect(try client.text() == "\(router.pid)")
            }
        }

        @Test("several routers of a worker: each question goes to the one with the fewest, one death is one router's")
        func several() throws {
            try withTProxy(["--routers", "3"]) { proxy in
                let worker = try proxy.worker()
                // All three decide by now: the two that hang are with the first and the second, the third has none.
                try proxy.process.line(with: "questions at once", count: 3)
                let hung = try (0..<2).map { _ in try proxy.client(#"{"do": "hang"}"#) }
                for _ in 0..<20 {
                    let client = try proxy.client(#"{"answer": {"close": "served"}}"#)
                    #expect(try client.text() == "served")
                }
                let before = proxy.routers(of: worker)
                kill(before[2], SIGKILL)
                for _ in 0..<20 {
                    let client = try proxy.client(#"{"answer": {"close": "served"}}"#)
                    #expect(try client.text() == "served")
                }
                try Deadline(in: patience).until("three again") { proxy.routers(of: worker).count == 3 }
                // Old ones leave when their questions are answered, or nobody's any more.
                for one in hung { one.reset() }
                proxy.process.signal(SIGHUP)
                try proxy.process.line(with: "reloaded: ")
                try Deadline(in: patience).until("three others") {
                    let now = proxy.routers(of: worker)
                    return now.count == 3 && now.allSatisfy { !before.contains($0) }
                }
            }
        }
    }
}
