import Foundation
import Glibc
import Testing

/// What a test reads of a process in the background.
private struct Daemon {
    let folder: Folder
    let pid: pid_t
    var log: String { (try? String(contentsOfFile: folder.path + "/log", encoding: .utf8)) ?? "" }

    static func arguments(_ folder: Folder, _ options: [String], router: String? = nil) -> [String] {
        [Repository.binary, "--router", router ?? Repository.python("told.py"), "-D", "-p", folder.path + "/pid"]
            + (options.contains("--log-file") ? [] : ["--log-file", folder.path + "/log"])
            + (options.contains("-b") ? [] : ["-b", "127.0.0.1:0"]) + options
    }

    /// Starts one; the shell's command has ended, and nobody holds its output, when this returns.
    init(_ options: [String] = [], router: String? = nil, prefix: [String] = []) throws {
        folder = Folder()
        let (status, text) = try Subprocess.run(prefix + Self.arguments(folder, options, router: router))
        guard status == 0 else { throw Failure("status \(status): \(text)") }
        guard let pid = Self.pid(folder) else { throw Failure("no pid file when the shell has its prompt back") }
        self.pid = pid
    }

    static func pid(_ folder: Folder) -> pid_t? {
        (try? String(contentsOfFile: folder.path + "/pid", encoding: .utf8)).flatMap {
            pid_t($0.trimmingCharacters(in: .newlines))
        }
    }

    var port: UInt16 {
        get throws {
            try #require(log.firstMatch(of: /listening on 127.0.0.1:(\d+)/).flatMap { UInt16($0.1) })
        }
    }

    func answer() throws -> String {
        let client = try Peer(port: port)
        try client.send(#"{"answer": {"close": "served"}}"# + "\n")
        return try client.text()
    }

    /// Ends it; nobody is left.
    func end() throws {
        let pid = Self.pid(folder) ?? pid
        let family = [pid] + Proc.children(of: pid) + Proc.children(of: pid).flatMap { Proc.children(of: $0) }
        kill(pid, SIGTERM)
        try Deadline(in: patience).until("everybody's end") { family.allSatisfy { !Proc.isAlive($0) } }
        #expect(Self.pid(folder) == nil)
    }
}

extension IntegrationTests {
    /// `-D`, `-m`, `-u` and `-g`.
    @Suite struct Daemons {
        @Test("-D gives the shell its prompt back when it serves, and keeps nothing of the shell")
        func ready() throws {
            let daemon = try Daemon()
            #expect(try daemon.answer() == "served")
            // Its session is its own, and so is what it is called.
            let stat = try #require(Proc.stat(daemon.pid))
            #expect(pid_t(stat[3]) == daemon.pid)
            #expect(try Proc.text("\(daemon.pid)/cmdline").hasPrefix("tproxy: master ["))
            #expect(try Proc.text("\(daemon.pid)/comm") == "tproxy\n")
            for number in 0...2 { #expect(try Proc.descriptors(daemon.pid)[number] == "/dev/null") }
            let folder = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(daemon.pid)/cwd")
            #expect(folder == FileManager.default.currentDirectoryPath)
            try daemon.end()
        }

        @Test("a start that fails is told to the shell, by status and message")
        func failed() throws {
            let folder = Folder()
            func run(_ options: [String], router: String? = nil) throws -> (status: Int32, text: String) {
                try Subprocess.run(Daemon.arguments(folder, options, router: router))
            }
            var (status, text) = try run([], router: "python3 -S /no/such/router.py")
            #expect(status == 3)
            #expect(text.contains("exited with status 2"))
            (status, text) = try run(["-b", "192.0.2.1:1"])
            #expect(status == 3)
            #expect(text.contains("cannot listen on 192.0.2.1:1"))
            (status, text) = try run(["--log-file", "/no/such/folder/log"])
            #expect(status == 3)
            #expect(text.contains("/no/such/folder/log"))
            (status, text) = try run(["-w", "0"])
            #expect(status == 2)
            #expect(Daemon.pid(folder) == nil)
        }

        @Test("a log on standard error is warned of, for -D closes that")
        func warning() throws {
            let folder = Folder()
            let (status, text) = try Subprocess.run(Daemon.arguments(folder, ["--log-file", "-"]))
            #expect(status == 0)
            #expect(text.contains("--log-file"))
            let pid = try #require(Daemon.pid(folder))
            kill(pid, SIGTERM)
            try Deadline(in: patience).until("its end") { !Proc.isAlive(pid) }
        }

        @Test("a daemon is started even if nobody reads the warning")
        func unreadWarning() throws {
            let nobodyReads = """
                import os, subprocess, sys
                reader, writer = os.pipe()
                os.close(reader)
                sys.exit(subprocess.run(sys.argv[1:], stderr=writer).returncode)
                """
            let daemon = try Daemon(["--log-file", "-"], prefix: ["python3", "-c", nobodyReads])
            #expect(Proc.isAlive(daemon.pid))
            try daemon.end()
        }

        @Test("when the shell's command is interrupted before it is ready, nothing stays behind")
        func interrupted() throws {
            let folder = Folder()
            let launcher = try Subprocess(Daemon.arguments(folder, [], router: "sleep 1000"))
            var daemon: pid_t?
            try Deadline(in: patience).until("a daemon with a router") {
                daemon = Proc.children(of: launcher.pid).first
                return daemon.map { Proc.children(of: $0).contains { !Proc.children(of: $0).isEmpty } } ?? false
            }
            launcher.signal(SIGINT)
            #expect(try launcher.end() == 128 + SIGINT)
            let pid = try #require(daemon)
            try Deadline(in: patience).until("its end") { !Proc.isAlive(pid) }
            #expect(Daemon.pid(folder) == nil)
        }

        @Test("WINCH drains a daemon's workers and keeps its listeners; HUP brings workers back")
        func rest() throws {
            let daemon = try Daemon(["-w", "2"])
            try Deadline(in: patience).until("two workers") { Proc.children(of: daemon.pid).count == 2 }
            kill(daemon.pid, SIGWINCH)
            try Deadline(in: patience).until("no workers") { Proc.children(of: daemon.pid).isEmpty }
            let client = try Peer(port: daemon.port)
            try client.send(#"{"answer": {"close": "served late"}}"# + "\n")
            kill(daemon.pid, SIGHUP)
            #expect(try client.text() == "served late")
            try Deadline(in: patience).until("two workers") { Proc.children(of: daemon.pid).count == 2 }
            try daemon.end()
        }

        @Test("a daemon is upgraded without going to the background again")
        func upgrade() throws {
            let daemon = try Daemon()
            kill(daemon.pid, SIGUSR2)
            try Deadline(in: patience).until("a successor") { daemon.log.contains("is ready; QUIT to this process") }
            let new = try #require(Daemon.pid(daemon.folder))
            #expect(new != daemon.pid)
            kill(daemon.pid, SIGQUIT)
            try Deadline(in: patience).until("the old one's end") { !Proc.isAlive(daemon.pid) }
            #expect(try daemon.answer() == "served")
            try daemon.end()
        }

        @Test("-m is the mask of the files that are made")
        func mask() throws {
            let daemon = try Daemon(["-m", "077"])
            for name in ["log", "pid"] {
                let attributes = try FileManager.default.attributesOfItem(atPath: "\(daemon.folder.path)/\(name)")
                #expect(attributes[.posixPermissions] as? Int == 0o600)
            }
            try daemon.end()
        }

        /// Answers `hello`, and every question with a close; for users who cannot read this repository.
        private static let shell = """
            #!/bin/sh
            while IFS= read -r line; do
                id=${line#*'"id":'}; id=${id%%,*}
                case $line in
                *'"method":"hello"'*) result='{"protocol":1,"name":"shell"}' ;;
                *) result="{\\"close\\":\\"$(id -u) $(id -g) $(id -G)\\"}" ;;
                esac
                printf '{"jsonrpc":"2.0","id":%s,"result":%s}\\n' "$id" "$result"
            done
            """

        @Test(
            "-u: workers and routers become that user for good, the arbiter does not; sockets and logs are the user's",
            .enabled(if: geteuid() == 0))
        func user() throws {
            let entry = try #require(getpwnam("nobody")).pointee
            let (user, group) = (entry.pw_uid, entry.pw_gid)
            let home = Folder()
            let script = try home.file("router.sh", Self.shell)
            chmod(script, 0o755)
            let socket = home.path + "/socket"
            let daemon = try Daemon(["-u", "nobody", "-b", "unix:\(socket)"], router: script)
            func answer() throws -> String {
                let client = try Peer(unix: socket)
                try client.send("x")
                return try client.text()
            }
            #expect(try answer() == "\(user) \(group) \(group)")
            let worker = try #require(Proc.children(of: daemon.pid).first)
            let router = try #require(Proc.children(of: worker).first)
            for pid in [worker, router] {
                let status = try Proc.text("\(pid)/status")
                #expect(status.contains("Uid:\t\(user)\t\(user)\t\(user)\t\(user)\n"))
                #expect(status.contains("Gid:\t\(group)\t\(group)\t\(group)\t\(group)\n"))
                #expect(status.contains("NoNewPrivs:\t1\n"))
                #expect(status.contains("CapEff:\t0000000000000000\n"))
            }
            #expect(try Proc.text("\(daemon.pid)/status").contains("Uid:\t0\t0\t0\t0\n"))
            for name in [socket, daemon.folder.path + "/log"] {
                let attributes = try FileManager.default.attributesOfItem(atPath: name)
                #expect(attributes[.ownerAccountID] as? UInt32 == user)
            }
            try daemon.end()
        }

        @Test("-u and -g: the log can be opened again by whom the worker has become", .enabled(if: geteuid() == 0))
        func userLogs() throws {
            let home = Folder()
            let script = try home.file("router.sh", Self.shell)
            chmod(script, 0o755)
            let access = home.path + "/access"
            let daemon = try Daemon(["-u", "nobody", "-g", "daemon", "--access-log", access], router: script)
            let group = try #require(getgrnam("daemon")).pointee.gr_gid
            let client = try Peer(port: daemon.port)
            try client.send("x")
            #expect(try client.text().split(separator: " ")[1] == "\(group)")
            #expect(rename(access, access + ".1") == 0)
            kill(daemon.pid, SIGUSR1)
            try Deadline(in: patience).until("the access log") { Glibc.access(access, F_OK) == 0 }
            try Deadline(in: patience).until("a line in it") {
                let again = try Peer(port: daemon.port)
                try again.send("x")
                _ = try again.text()
                return try !String(contentsOfFile: access, encoding: .utf8).isEmpty
            }
            #expect(!daemon.log.contains("[error]"))
            try daemon.end()
        }

        @Test("a user or group that does not exist is a wrong option")
        func nobody() throws {
            for options in [["-u", "no-such-user"], ["-g", "no-such-group"]] {
                let (status, text) = try Subprocess.run(
                    [Repository.binary, "--router", "true", "-b", "127.0.0.1:0"] + options)
                #expect(status == 2)
                #expect(text.contains(options[0]))
                #expect(text.contains("'\(options[1])': there is no such"))
            }
        }
    }
}
