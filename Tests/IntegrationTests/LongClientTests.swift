import Foundation
import Glibc
import Testing

/// Whether a program is there, also where only root looks for it.
private func hasService(_ program: String) -> Bool {
    (try? Subprocess.run(["sh", "-c", "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; command -v \(program)"]))?.status
        == 0
}

/// A tproxy that sends everything to one remote, and can be reloaded and upgraded.
private final class Transparent {
    let folder: Folder
    let proxy: TProxy
    private var serving: pid_t

    init(to remote: String) throws {
        folder = Folder()
        proxy = try TProxy(
            ["-p", folder.path + "/pid"], script: [Repository.example("transparent.py")],
            environment: ["REMOTE": remote])
        serving = proxy.process.pid
    }

    /// A HUP, and an upgrade whose old arbiter is told to go. The connections that are open now outlive both.
    func reloadAndUpgrade() throws {
        kill(serving, SIGHUP)
        try proxy.process.line(with: "reloaded: ")
        kill(serving, SIGUSR2)
        let line = try proxy.process.line(with: "is ready; QUIT to this process", within: 30)
        let successor = try #require(line.firstMatch(of: /upgrade: process (\d+) is ready/).flatMap { pid_t($0.1) })
        kill(serving, SIGQUIT)
        serving = successor
        try proxy.process.line(with: "this process serves alone")
        kill(serving, SIGHUP)
        try proxy.process.line(with: "reloaded: ", count: 2)
    }

    /// The first arbiter goes once the connection that it has drained has ended; how that connection ended.
    func end() throws -> TProxy.Access {
        try Deadline(in: patience).until("the old arbiter's end") { !Proc.isAlive(proxy.process.pid) }
        kill(serving, SIGTERM)
        #expect(try proxy.process.end() == 0)
        #expect(proxy.process.lines.filter { $0.contains(/worker.*died of |Fatal error/) } == [])
        return try proxy.accesses(1)[0]
    }
}

extension IntegrationTests {
    /// Connections that last, by programs that people use: each is open across a HUP and a completed upgrade.
    @Suite struct LongClients {
        @Test("a WebSocket", .timeLimit(.minutes(2)))
        func webSocket() throws {
            let helper = Repository.helper("websocket.py")
            let server = try Subprocess(["python3", "-u", helper, "serve"])
            let port = try #require(try server.line(with: "port ").split(separator: " ").last)
            let transparent = try Transparent(to: "127.0.0.1:\(port)")
            let client = try Subprocess(["python3", "-u", helper, "client", "\(transparent.proxy.port)"])
            try client.line(with: "answered")
            try transparent.reloadAndUpgrade()
            // Sent and answered after all that.
            try client.line(with: "answered", count: client.lines.count + 2)
            client.signal(SIGTERM)
            #expect(try client.end() == 0, "\(client.text)")
            #expect(client.text.contains("closed 1000 after"), "\(client.text)")
            #expect(try transparent.end()["reason"] == "done")
            #expect(!server.text.contains("Error"), "\(server.text)")
        }

        @Test(
            "git clone from git daemon",
            .enabled(if: has("git"), "git is not installed (scripts/install-missing test)"), .timeLimit(.minutes(2)))
        func gitClone() throws {
            let folder = Folder()
            let (source, copy, go) = (folder.path + "/source", folder.path + "/copy", folder.path + "/go")
            // What upload-pack sends is slowed down until the signals are over; the user's own settings stay out of it.
            let hook = try folder.file(
                "hook", "#!/bin/sh\n\"$@\" | python3 -S '\(Repository.helper("throttle.py"))' '\(go)'\n")
            chmod(hook, 0o755)
            let settings = try folder.file(
                "settings",
                """
                [user]
                \tname = test
                \temail = test@localhost
                [uploadpack]
                \tpackObjectsHook = \(hook)
                """)
            let environment = ["GIT_CONFIG_GLOBAL": settings, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"]
            func git(_ arguments: [String]) throws -> String {
                let (status, text) = try Subprocess.run(["git"] + arguments, environment: environment)
                if status != 0 { throw Failure("git \(arguments): \(text)") }
                return text
            }
            _ = try git(["init", "-q", source])
            var random = SystemRandomNumberGenerator()
            let words = (0..<4_000_000).map { _ in random.next() }
            let large = words.withUnsafeBytes { Data($0) }
            try large.write(to: URL(filePath: source + "/large"))
            _ = try git(["-C", source, "add", "large"])
            _ = try git(["-C", source, "commit", "-q", "-m", "large"])

            let port = try deadPort()
            let daemon = try Subprocess(
                [
                    "git", "daemon", "--verbose", "--export-all", "--reuseaddr", "--listen=127.0.0.1",
                    "--port=\(port)", "--base-path=\(folder.path)",
                ], environment: environment)
            try daemon.line(with: "Ready to rumble")
            let transparent = try Transparent(to: "127.0.0.1:\(port)")
            let clone = try Subprocess(
                ["git", "clone", "--progress", "git://127.0.0.1:\(transparent.proxy.port)/source", copy],
                environment: environment)
            try daemon.line(with: "Request upload-pack for '/source'")
            // A pack is arriving.
            try Deadline(in: patience).until("the clone's first objects") {
                let pack = copy + "/.git/objects/pack"
                return try FileManager.default.fileExists(atPath: pack)
                    && FileManager.default.contentsOfDirectory(atPath: pack).contains { $0.hasPrefix("tmp_pack") }
            }
            try transparent.reloadAndUpgrade()
            #expect(Proc.isAlive(clone.pid), "the clone was over before the signals were")
            _ = try folder.file("go")
            #expect(try clone.end(within: 60) == 0, "\(clone.text)")
            #expect(try Data(contentsOf: URL(filePath: copy + "/large")) == large)
            #expect(try git(["-C", copy, "rev-parse", "HEAD"]) == git(["-C", source, "rev-parse", "HEAD"]))
            let access = try transparent.end()
            #expect(access["reason"] == "done")
            #expect(access.number("to_client") > Double(large.count), "\(access)")
        }

        @Test(
            "an OpenSSH client that runs a command on an OpenSSH server",
            .enabled(if: has("ssh"), "ssh is not installed (scripts/install-missing test)"),
            .enabled(if: hasService("sshd"), "sshd is not installed (scripts/install-missing test)"),
            .timeLimit(.minutes(2)))
        func ssh() throws {
            let folder = Folder()
            chmod(folder.path, 0o700)
            for name in ["host", "client"] {
                let made = try Subprocess.run([
                    "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "\(folder.path)/\(name)",
                ])
                #expect(made.status == 0, "\(made.text)")
            }
            // Where sshd locks itself in; a package makes it when the service starts, which no test asks for.
            if getuid() == 0 { mkdir("/run/sshd", 0o755) }
            let port = try deadPort()
            let settings = try folder.file(
                "settings",
                """
                Port \(port)
                ListenAddress 127.0.0.1
                HostKey \(folder.path)/host
                AuthorizedKeysFile \(folder.path)/client.pub
                StrictModes no
                UsePAM no
                PidFile none
                PasswordAuthentication no
                KbdInteractiveAuthentication no
                """)
            // It insists on an absolute path.
            let server = try Subprocess([
                "sh", "-c",
                "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; exec \"$(command -v sshd)\" -D -e -f '\(settings)'",
            ])
            try server.line(with: "Server listening on 127.0.0.1")
            let transparent = try Transparent(to: "127.0.0.1:\(port)")

            // What the client is told by keyboard, so to speak.
            let input = folder.path + "/input"
            mkfifo(input, 0o600)
            let keyboard = open(input, O_RDWR | O_CLOEXEC)
            defer { if keyboard >= 0 { close(keyboard) } }
            let user = try Subprocess.run(["id", "-un"]).text
            let client = try Subprocess([
                "sh", "-c",
                """
                exec ssh -F none -T -p \(transparent.proxy.port) -i '\(folder.path)/client' -o BatchMode=yes \
                -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
                \(user)@127.0.0.1 'while read -r line && [ "$line" != over ]; do echo "got $line"; done; echo end' \
                < '\(input)'
                """,
            ])
            var told = 0
            func tell(_ count: Int) {
                let text = (told..<told + count).map { "\($0)\n" }.joined()
                told += count
                _ = write(keyboard, text, text.utf8.count)
            }
            tell(1)
            try client.line(with: "got 0")
            // Some of it is under way while the signals are handled.
            tell(2000)
            try transparent.reloadAndUpgrade()
            tell(2000)
            _ = write(keyboard, "over\n", 5)
            #expect(try client.end(within: 30) == 0, "\(client.lines.suffix(5)) \(server.lines.suffix(20))")
            #expect(client.lines == (0..<told).map { "got \($0)" } + ["end"])
            #expect(try transparent.end()["reason"] == "done")
        }
    }
}
