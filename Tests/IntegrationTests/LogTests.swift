import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// Logs that cannot be written, that nobody reads, that are moved away.
    @Suite struct Logs {
        /// Starts tproxy where its log cannot be waited for: on a Unix socket, which answers when all is well.
        private func start(_ folder: Folder, _ options: [String]) throws -> (Subprocess, () throws -> Peer) {
            let path = "\(folder.path)/front"
            let process = try Subprocess(
                [Repository.binary, "--router", Repository.python("told.py"), "-b", "unix:\(path)"] + options)
            func client() throws -> Peer {
                let client = try Peer(unix: path)
                try client.send("{\"answer\": {\"close\": \"served\"}}\n")
                return client
            }
            try Deadline(in: patience).until("a tproxy that serves") { (try? client().text()) == "served" }
            return (process, client)
        }

        @Test("a full disk is no reason to stop")
        func fullDisk() throws {
            let folder = Folder()
            let (process, client) = try start(folder, ["--log-file", "/dev/full", "--access-log", "/dev/full"])
            for _ in 0..<200 { #expect(try client().text() == "served") }
            process.signal(SIGTERM)
            #expect(try process.end() == 0)
        }

        @Test("a log that nobody reads holds nobody up, and its losses are told when somebody does")
        func fullPipe() throws {
            let folder = Folder()
            let fifo = "\(folder.path)/fifo"
            mkfifo(fifo, 0o600)
            let reader = open(fifo, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
            defer { close(reader) }
            func drained() -> String {
                var bytes: [UInt8] = []
                var buffer = [UInt8](repeating: 0, count: 65_536)
                while true {
                    let count = read(reader, &buffer, buffer.count)
                    guard count > 0 else { return String(decoding: bytes, as: UTF8.self) }
                    bytes += buffer[..<count]
                }
            }
            let (process, client) = try start(folder, ["--access-log", fifo])
            // Twice what the pipe and the buffer hold.
            for _ in 0..<1500 { #expect(try client().text() == "served") }
            var text = drained()
            try Deadline(in: patience).until("the count of what was lost") { () throws in
                #expect(try client().text() == "served")
                text += drained()
                return text.contains("lost_lines=")
            }
            #expect(text.split(separator: "\n").allSatisfy { $0.contains(" reason=") })
            process.signal(SIGTERM)
            #expect(try process.end() == 0)
        }

        @Test("a log whose reader is gone costs nobody's life, whoever writes to it", arguments: ["-", "fifo"])
        func brokenPipe(log: String) throws {
            let folder = Folder()
            let (fifo, front) = ("\(folder.path)/fifo", "\(folder.path)/front")
            mkfifo(fifo, 0o600)
            let reader = open(fifo, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
            let path = log == "-" ? log : fifo
            let process = try Subprocess(
                [
                    "sh", "-c", "exec \"$@\" 2>\(log == "-" ? fifo : "/dev/null")", "sh", Repository.binary, "--router",
                    Repository.python("told.py"), "-b", "unix:\(front)", "--log-file", path, "--access-log", path,
                ])
            func serve() throws {
                let client = try Peer(unix: front)
                try client.send("{\"answer\": {\"close\": \"served\"}}\n")
                #expect(try client.text() == "served")
            }
            try Deadline(in: patience).until("a tproxy that serves") { (try? serve()) != nil }
            let worker = try #require(Proc.children(of: process.pid).first)
            let router = try #require(Proc.children(of: worker).first)
            close(reader)
            for _ in 0..<5 { try serve() }
            // The arbiter says that it does this, the worker whom it starts.
            process.signal(SIGHUP)
            try Deadline(in: patience).until("another router") { () throws in
                // The new one has proved itself once it has answered.
                try serve()
                return !Proc.isAlive(router)
            }
            #expect(Proc.children(of: process.pid) == [worker])
            // The next one finds a log that nobody reads from the beginning.
            kill(worker, SIGKILL)
            try Deadline(in: patience).until("another worker") {
                let now = Proc.children(of: process.pid)
                return now.count == 1 && now != [worker] && !Proc.children(of: now[0]).isEmpty
            }
            try serve()
            process.signal(SIGTERM)
            #expect(try process.end() == 0)
        }

        @Test("standard error can be a socket, a file that is written to elsewhere, or closed")
        func standardError() throws {
            // A process beside it copies the socket to where the lines are read.
            let socket = """
                import os, socket, sys
                a, b = socket.socketpair()
                if os.fork() == 0:
                    if os.fork():
                        os._exit(0)
                    b.close()
                    os.close(2)
                    while data := a.recv(65536):
                        os.write(1, data)
                    os._exit(0)
                os.wait()
                a.close()
                os.dup2(b.fileno(), 2)
                os.execvp(sys.argv[1], sys.argv[1:])
                """
            let proxy = try TProxy(prefix: ["python3", "-c", socket])
            let client = try proxy.client(#"{"answer": {"close": "served"}}"#)
            #expect(try client.text() == "served")
            try proxy.access(client)
            #expect(try proxy.stop() == 0)

            let folder = Folder()
            let file = try folder.file("log", "here before\n")
            let (process, _) = try start(folder, [])
            process.signal(SIGTERM)
            #expect(try process.end() == 0)
            let path = "\(folder.path)/other"
            let router = Repository.python("told.py")
            let shared = try Subprocess([
                "sh", "-c", "exec \"$0\" --router \"$1\" -b unix:\(path) 2>>\(file)", Repository.binary, router,
            ])
            try Deadline(in: patience).until("it serves") { (try? Peer(unix: path)) != nil }
            shared.signal(SIGTERM)
            #expect(try shared.end() == 0)
            let text = try String(contentsOfFile: file, encoding: .utf8)
            #expect(text.hasPrefix("here before\n2") && text.contains("listening on"))

            let closed = try Subprocess([
                "sh", "-c", "exec \"$0\" --router \"$1\" -b unix:\(path) 2>&-", Repository.binary, router,
            ])
            try Deadline(in: patience).until("it serves") { (try? Peer(unix: path)) != nil }
            closed.signal(SIGTERM)
            #expect(try closed.end() == 0)
        }

        @Test("a worker that takes another's place serves though it has no logs, says so, and finds them at USR1")
        func gone() throws {
            let folder = Folder()
            let (logs, away) = ("\(folder.path)/logs", "\(folder.path)/away")
            mkdir(logs, 0o755)
            let (process, client) = try start(
                folder, ["--log-file", "\(logs)/log", "--access-log", "\(logs)/access"])
            func text(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }
            let worker = try #require(Proc.children(of: process.pid).first)
            rename(logs, away)
            kill(worker, SIGKILL)
            #expect(try client().text() == "served")
            // On standard error, and in the log that the arbiter still has.
            for log in ["log", "access"] {
                try process.line(with: "the log \(logs)/\(log) cannot be opened: No such file or directory")
                try Deadline(in: patience).until("the arbiter's word") {
                    text("\(away)/log").contains("): the log \(logs)/\(log) cannot be opened: ")
                }
            }
            mkdir(logs, 0o755)
            process.signal(SIGUSR1)
            try Deadline(in: patience).until("lines in the new files") { () throws in
                #expect(try client().text() == "served")
                return text("\(logs)/access").contains(" reason=")
            }
            process.signal(SIGTERM)
            #expect(try process.end() == 0)
            #expect(text("\(logs)/log").contains("stopped"))
        }

        @Test("after USR1 every process writes to the new files")
        func reopened() throws {
            let folder = Folder()
            let (log, access) = ("\(folder.path)/log", "\(folder.path)/access")
            let (process, client) = try start(folder, ["--log-file", log, "--access-log", access])
            func text(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }
            #expect(text(log).contains("listening on"))
            rename(log, log + ".1")
            rename(access, access + ".1")
            process.signal(SIGUSR1)
            try Deadline(in: patience).until("lines in the new files") { () throws in
                #expect(try client().text() == "served")
                return text(access).contains(" reason=")
            }
            process.signal(SIGTERM)
            #expect(try process.end() == 0)
            #expect(text(log).contains("stopped") && !text(log + ".1").contains("stopped"))
        }
    }
}
