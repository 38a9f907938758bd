import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// USR2: a second arbiter beside the first, and who goes.
    @Suite struct Upgrades {
        /// A tproxy whose program is a link that can be moved to another version.
        final class Installed {
            let folder = Folder()
            let proxy: TProxy
            var pidPath: String { folder.path + "/pid" }
            var pid: pid_t? { read(pidPath) }
            var oldPid: pid_t? { read(pidPath + ".oldbin") }
            /// Everything that has to be gone at the end.
            var everybody: Set<pid_t> = []

            init(_ options: [String] = [], router: String? = nil) throws {
                let program = folder.path + "/tproxy"
                try FileManager.default.createSymbolicLink(
                    atPath: program, withDestinationPath: (Repository.binary as NSString).resolvingSymlinksInPath)
                proxy = try TProxy(["-p", folder.path + "/pid"] + options, router: router, binary: program)
            }

            private func read(_ path: String) -> pid_t? {
                (try? String(contentsOfFile: path, encoding: .utf8)).flatMap {
                    pid_t($0.trimmingCharacters(in: .newlines))
                }
            }

            /// Sends USR2 and waits for the successor that makes so many.
            func upgrade(of arbiter: pid_t? = nil, count: Int = 1) throws -> pid_t {
                kill(arbiter ?? proxy.process.pid, SIGUSR2)
                let line = try proxy.process.line(with: "is ready; QUIT to this process", count: count)
                let found = line.firstMatch(of: /upgrade: process (\d+) is ready/).flatMap { pid_t($0.1) }
                return try #require(found)
            }

            func note() {
                var open = [proxy.process.pid, pid ?? 0]
                while let one = open.popLast() {
                    if everybody.insert(one).inserted { open += Proc.children(of: one) }
                }
            }

            /// Ends whoever serves; everybody is gone.
            func end() throws {
                note()
                try kill(#require(pid), SIGTERM)
                #expect(try proxy.process.end() == 0)
                try Deadline(in: patience).until("everybody's end") {
                    everybody.allSatisfy { $0 <= 0 || !Proc.isAlive($0) }
                }
                #expect(pid == nil)
                #expect(oldPid == nil)
                let deaths = proxy.process.lines.filter { $0.contains(/worker.*died of |Fatal error/) }
                #expect(deaths.isEmpty)
            }
        }

        @Test(
            "USR2, then QUIT to the old one: open connections finish there, new ones are the new one's, and no client notices"
        )
        func completed() throws {
            let installed = try Installed()
            let proxy = installed.proxy
            let old = proxy.process.pid
            #expect(installed.pid == old)
            let origin = try Origin()
            let (client, server) = try relayed(proxy, origin)

            let new = try installed.upgrade()
            #expect(installed.pid == new)
            #expect(installed.oldPid == old)
            #expect(Proc.children(of: old).contains(new))
            // Both serve.
            for _ in 0..<20 { #expect(try proxy.answer() == "served") }
            installed.note()

            kill(old, SIGQUIT)
            try proxy.process.line(with: "this process serves alone")
            #expect(installed.oldPid == nil)
            for _ in 0..<20 { #expect(try proxy.answer() == "served") }
            try client.send("late")
            try server.expect("late")

            // The old one still drains, and the next upgrade begins.
            let newer = try installed.upgrade(of: new, count: 2)
            #expect(installed.pid == newer)
            #expect(installed.oldPid == new)
            installed.note()
            kill(new, SIGQUIT)
            try proxy.process.line(with: "this process serves alone", count: 2)
            try server.send("later")
            try client.expect("later")
            client.end()
            server.end()
            #expect(try client.ending() == .end)
            // A child of this test: it is a zombie until it is reaped.
            try Deadline(in: patience).until("the old ones' end") { !Proc.isAlive(old) && !Proc.isAlive(new) }
            #expect(try proxy.answer() == "served")
            try installed.end()
        }

        @Test("the program that is started is the one that its name leads to by then")
        func moved() throws {
            let installed = try Installed()
            let other = installed.folder.path + "/v2"
            try FileManager.default.copyItem(
                atPath: (Repository.binary as NSString).resolvingSymlinksInPath, toPath: other)
            let link = installed.folder.path + "/tproxy"
            unlink(link)
            try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: other)
            let new = try installed.upgrade()
            let running = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(new)/exe")
            #expect(running == other)
            // Workers are the version of their arbiter.
            let worker = try #require(Proc.children(of: new).first)
            #expect(try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(worker)/exe") == other)
            kill(installed.proxy.process.pid, SIGQUIT)
            try installed.proxy.process.line(with: "this process serves alone")
            try installed.end()
        }

        @Test(
            "TERM or QUIT to the new one takes it back, and the old one never stopped serving",
            arguments: [SIGTERM, SIGQUIT])
        func backedOut(signal: Int32) throws {
            let installed = try Installed()
            let proxy = installed.proxy
            let worker = try proxy.worker()
            for round in 1...2 {
                let new = try installed.upgrade(count: round)
                kill(proxy.process.pid, SIGUSR2)
                try proxy.process.line(with: "an upgrade is under way", count: round)
                kill(new, SIGUSR2)
                try proxy.process.line(with: "the upgrade to this process is open", count: round)
                installed.note()
                kill(new, signal)
                try proxy.process.line(with: "upgrade taken back", count: round)
                for _ in 0..<20 { #expect(try proxy.answer() == "served") }
                try Deadline(in: patience).until("its end") { !Proc.isAlive(new) }
                #expect(installed.pid == proxy.process.pid)
                #expect(installed.oldPid == nil)
            }
            #expect(try proxy.worker() == worker)
            try installed.end()
        }

        @Test("a successor that is killed leaves the old one as it was")
        func killed() throws {
            let installed = try Installed(["--graceful-timeout", "0.5"])
            let new = try installed.upgrade()
            installed.note()
            kill(new, SIGKILL)
            try installed.proxy.process.line(with: "upgrade failed: process \(new) died of SIGKILL")
            try Deadline(in: patience).until("the name") { installed.pid == installed.proxy.process.pid }
            #expect(try installed.proxy.answer() == "served")
            let status = installed.proxy
            installed.note()
            status.process.signal(SIGTERM)
            #expect(try status.process.end() == 0)
            #expect(installed.pid == nil)
        }

        @Test("an old one that is killed leaves the new one alone with everything")
        func oldKilled() throws {
            let installed = try Installed(["--graceful-timeout", "0.5"])
            let new = try installed.upgrade()
            installed.note()
            installed.proxy.process.signal(SIGKILL)
            try installed.proxy.process.line(with: "this process serves alone")
            try Deadline(in: patience).until("no stale name") { installed.oldPid == nil }
            #expect(installed.pid == new)
            for _ in 0..<20 { #expect(try installed.proxy.answer() == "served") }
            kill(new, SIGTERM)
            #expect(try installed.proxy.process.end() == 128 + SIGKILL)
        }

        @Test("one that fails to boot, or is no tproxy at all, changes nothing, and the log says why")
        func failed() throws {
            let installed = try Installed()
            let proxy = installed.proxy
            let link = installed.folder.path + "/tproxy"
            func install(_ script: String?) throws {
                unlink(link)
                guard let script else { return }
                try script.write(toFile: link, atomically: false, encoding: .utf8)
                chmod(link, 0o755)
            }
            func expectFailure(_ reason: String, count: Int) throws {
                proxy.process.signal(SIGUSR2)
                let line = try proxy.process.line(with: "upgrade failed: ", count: count)
                #expect(line.contains(reason))
                #expect(line.contains("goes on as before"))
                #expect(try proxy.answer() == "served")
                try Deadline(in: patience).until("the name") { installed.pid == proxy.process.pid }
                #expect(installed.oldPid == nil)
            }
            try install(nil)
            try expectFailure("No such file or directory", count: 1)
            try install("#!/bin/sh\nexit 9\n")
            try expectFailure("it exited with status 9", count: 2)
            try install("#!/bin/sh\nkill -SEGV $$\n")
            try expectFailure("it died of SIGSEGV", count: 3)
            // Today's version with an option that it does not know, and with a router that does not come up.
            try install("#!/bin/sh\nexec '\(Repository.binary)' --no-such-option\n")
            try expectFailure("--no-such-option", count: 4)
            try install("#!/bin/sh\nexec '\(Repository.binary)' --router 'false' -p '\(installed.pidPath)'\n")
            try expectFailure("the router false exited with status 1", count: 5)
            try installed.end()
        }

        @Test(
            "the file of a Unix listener outlives the old one, and a new one that is taken back; it goes with the last")
        func unixListener() throws {
            let folder = Folder()
            let path = folder.path + "/socket"
            let installed = try Installed(["-b", "unix:\(path)"])
            let proxy = installed.proxy
            func answer() throws -> String {
                let client = try Peer(unix: path)
                try client.send(#"{"answer": {"close": "served"}}"# + "\n")
                return try client.text()
            }
            let first = try installed.upgrade()
            installed.note()
            kill(first, SIGTERM)
            try Deadline(in: patience).until("its end") { !Proc.isAlive(first) }
            #expect(try answer() == "served")
            _ = try installed.upgrade(count: 2)
            installed.note()
            kill(proxy.process.pid, SIGQUIT)
            try Deadline(in: patience).until("the old one's end") { !Proc.isAlive(proxy.process.pid) }
            #expect(try answer() == "served")
            try installed.end()
            #expect(access(path, F_OK) != 0)
        }
    }

    /// The pid file by itself.
    @Suite struct PidFiles {
        @Test("it holds the arbiter's pid, is refused while that lives, and goes with it")
        func life() throws {
            let folder = Folder()
            let path = folder.path + "/pid"
            let proxy = try TProxy(["--pid", path])
            #expect(try String(contentsOfFile: path, encoding: .utf8) == "\(proxy.process.pid)\n")
            let (status, text) = try Subprocess.run([
                Repository.binary, "--router", Repository.python("told.py"), "-b", "127.0.0.1:0", "-p", path,
            ])
            #expect(status == 3)
            #expect(text.contains("held by process \(proxy.process.pid)"))
            #expect(try proxy.answer() == "served")
            #expect(try proxy.stop() == 0)
            #expect(access(path, F_OK) != 0)
        }

        @Test("one that a killed tproxy has left is replaced")
        func stale() throws {
            let folder = Folder()
            let path = folder.path + "/pid"
            let first = try TProxy(["-p", path])
            first.process.signal(SIGKILL)
            #expect(try first.process.end() == 128 + SIGKILL)
            #expect(access(path, F_OK) == 0)
            let second = try TProxy(["-p", path])
            #expect(try String(contentsOfFile: path, encoding: .utf8) == "\(second.process.pid)\n")
            #expect(try second.stop() == 0)
        }
    }
}
