import Foundation
import Glibc
import Testing

/// A conversation with a listener that speaks TLS, by `openssl s_client`.
private struct Conversation {
    let text: String
    /// Whether an earlier session was resumed.
    let isResumed: Bool
    /// The question as the router saw it.
    let question: [String: String]

    /// Asks the router for a report and reads on to the end. The session is kept in `keep`; one that was kept is in `session`.
    init(port: UInt16, keep: String? = nil, session: String? = nil, options: String = "") throws {
        var command = "printf '%s\\n' '{\"report\": true}' | openssl s_client -ign_eof -connect 127.0.0.1:\(port)"
        if let keep { command += " -sess_out '\(keep)'" }
        if let session { command += " -sess_in '\(session)'" }
        text = try Subprocess.run(["sh", "-c", "\(command) \(options) 2>&1"]).text
        guard let shake = text.firstMatch(of: /(?m)^(New|Reused), TLS/) else { throw Failure("no handshake: \(text)") }
        isResumed = shake.1 == "Reused"
        var question: [String: String] = [:]
        for match in text.matches(of: /"(connection|listener)": "([^"]+)"/) {
            question[String(match.1)] = String(match.2)
        }
        guard question.count == 2 else { throw Failure("no report: \(text)") }
        self.question = question
    }

    /// The serial of the worker that has served.
    var worker: Substring { (question["connection"] ?? "").prefix { $0 != "." } }
}

/// A certificate and its key, where tproxy looks for them.
private final class Installed {
    let certificates: Certificates
    let folder = Folder()
    let pair: Certificates.Pair

    init(_ first: (Certificates) throws -> Certificates.Pair = { try $0.leaf("first") }) throws {
        certificates = try Certificates()
        pair = Certificates.Pair(certificate: folder.path + "/tls.crt", key: folder.path + "/tls.key")
        try install(try first(certificates))
    }

    var options: [String] { ["--ssl-certfile", pair.certificate, "--ssl-keyfile", pair.key] }

    /// Puts another certificate and key in their place.
    func install(_ other: Certificates.Pair) throws {
        try install(certificate: other.certificate, key: other.key)
    }

    func install(certificate: String, key: String) throws {
        for (source, target) in [(certificate, pair.certificate), (key, pair.key)] {
            try Data(contentsOf: URL(filePath: source)).write(to: URL(filePath: target))
        }
        chmod(pair.key, 0o600)
    }
}

extension Certificates {
    /// What the authority says of a certificate, good for so many days; in a file that it is moved from.
    fileprivate func response(of pair: Pair, days: Int) throws -> String {
        let file = pair.certificate + ".response"
        try Self.openssl([
            "ocsp", "-index", path + "/index.txt", "-CA", authority.certificate, "-issuer", authority.certificate,
            "-rsigner", authority.certificate, "-rkey", authority.key, "-cert", pair.certificate, "-ndays", "\(days)",
            "-noverify", "-respout", file,
        ])
        return file
    }

    /// When what is in a file says that there will be the next, or what a port of 127.0.0.1 shows to those that ask; nil
    /// when that is nothing.
    fileprivate static func nextUpdate(in file: String) throws -> Substring? {
        try nextUpdate(openssl(["ocsp", "-noverify", "-respin", file, "-resp_text"]))
    }

    fileprivate static func nextUpdate(shownOn port: UInt16, _ options: String = "") throws -> Substring? {
        let (_, text) = try Subprocess.run([
            "sh", "-c", "openssl s_client -connect 127.0.0.1:\(port) -status \(options) </dev/null 2>&1",
        ])
        if text.contains("OCSP response: no response sent") { return nil }
        guard text.contains("OCSP Response Status: successful") else { throw Failure("no handshake: \(text)") }
        return nextUpdate(text)
    }

    private static func nextUpdate(_ text: String) -> Substring? { text.firstMatch(of: /Next Update: (.*)/)?.1 }
}

extension IntegrationTests {
    /// Certificates and keys between the options and the workers.
    @Suite struct TLSArbiter {
        // MARK: At the start

        @Test("a certificate that cannot be used ends the start with status 3, the file and the reason")
        func refused() throws {
            let installed = try Installed()
            let other = try installed.certificates.leaf("other")
            let broken = try installed.folder.file("broken.pem", "nothing\n")
            func start(_ options: [String]) throws -> (status: Int32, text: String) {
                try Subprocess.run([Repository.binary, "--router", "cat", "-b", "127.0.0.1:0"] + options)
            }
            for (options, words) in [
                (["--ssl-certfile", "/nowhere/x.pem"], ["/nowhere/x.pem: cannot be read: No such file or directory"]),
                (["--ssl-certfile", broken], ["cannot start: \(broken): there is no certificate in it"]),
                (
                    ["--ssl-certfile", installed.pair.certificate],
                    ["\(installed.pair.certificate): there is no private key in it"]
                ),
                (
                    ["--ssl-certfile", installed.pair.certificate, "--ssl-keyfile", other.key],
                    [installed.pair.certificate, other.key, "key values mismatch"]
                ),
                (installed.options + ["--ssl-ca-certs", broken, "--ssl-cert-reqs", "2"], [broken]),
                (installed.options + ["--ssl-ciphers", "NOTHING"], ["--ssl-ciphers: NOTHING: no cipher match"]),
            ] {
                let (status, text) = try start(options)
                #expect(status == 3, "\(text)")
                for word in words { #expect(text.contains(word), "\(text)") }
                #expect(!text.contains("listening on"))
            }
            // Under -D the shell hears it.
            let daemon = try start(["-D", "--log-file", installed.folder.path + "/log", "--ssl-certfile", broken])
            #expect(daemon.status == 3 && daemon.text.contains("\(broken): there is no certificate in it"))
        }

        @Test("listeners are called what they speak, and a folder of certificates is one for each name")
        func listeners() throws {
            let certificates = try Certificates()
            let folder = Folder()
            var shown: [String: String] = [:]
            for name in ["a.test", "b.test"] {
                let pair = try certificates.leaf(name, names: [name], addresses: [])
                try Data(contentsOf: URL(filePath: pair.certificate))
                    .write(to: URL(filePath: "\(folder.path)/\(name).crt"))
                try Data(contentsOf: URL(filePath: pair.key)).write(to: URL(filePath: "\(folder.path)/\(name).key"))
                shown[name] = try pair.fingerprint()
            }
            let both = ["--ssl-certfile", folder.path, "-b", "127.0.0.1:0", "-b", "tls://127.0.0.1:0"]
            try withTProxy(both) { proxy in
                let ports = proxy.ports
                #expect(proxy.process.text.contains("listening on tls://127.0.0.1:\(ports[1])"))
                let plain = try proxy.client()
                try plain.send("{\"report\": true}\n")
                #expect(try plain.text().contains("\"listener\": \"127.0.0.1:\(ports[0])\""))
                let secure = try Conversation(port: ports[1])
                #expect(secure.question["listener"] == "tls://127.0.0.1:\(ports[1])")
                for (name, fingerprint) in shown {
                    #expect(try Certificates.fingerprint(shownOn: ports[1], name: name) == fingerprint)
                }
                #expect(try Certificates.fingerprint(shownOn: ports[1]) == shown["a.test"])
                let access = try proxy.process.line(with: "listener=tls://127.0.0.1:\(ports[1])")
                #expect(access.contains("id=\(secure.worker)."))
            }
            // Without tls:// it is all of them.
            try withTProxy(["--ssl-certfile", folder.path, "-b", "127.0.0.1:0", "-b", "127.0.0.1:0"]) { proxy in
                for port in proxy.ports {
                    let secure = try Conversation(port: port)
                    #expect(secure.question["listener"] == "tls://127.0.0.1:\(port)")
                }
            }
        }

        @Test("a socket that a service manager passes speaks TLS, unless tls:// says which ones do")
        func passed() throws {
            let installed = try Installed()
            func start(_ options: [String]) throws -> (Subprocess, [Substring]) {
                let process = try Subprocess(
                    ServiceManagers.activating
                        + [Repository.binary, "--router", Repository.python("told.py")] + installed.options + options)
                try process.line(with: "ready: 1 worker")
                return (process, process.text.matches(of: /listening on (\S+)/).map(\.1))
            }
            for (options, expected) in [
                ([], ["tls://"]), (["-b", "127.0.0.1:0"], ["tls://", "tls://"]),
                (["-b", "tls://127.0.0.1:0"], ["tls://", ""]),
            ] {
                let (process, listeners) = try start(options)
                #expect(listeners.map { $0.hasPrefix("tls://") ? "tls://" : "" } == expected)
                for listener in listeners {
                    let port = try #require(listener.split(separator: ":").last.flatMap { UInt16($0) })
                    if listener.hasPrefix("tls://") {
                        _ = try Conversation(port: port)
                    } else {
                        let client = try Peer(port: port)
                        try client.send("{\"report\": true}\n")
                        #expect(try client.text().contains("\"connection\""))
                    }
                }
                process.signal(SIGTERM)
                #expect(try process.end() == 0)
            }
        }

        // MARK: HUP

        @Test("HUP takes new certificates for new connections, and keeps the old ones when the new cannot be used")
        func reloaded() throws {
            let installed = try Installed()
            let certificates = installed.certificates
            let second = try certificates.leaf("second")
            let third = try certificates.leaf("third")
            let first = try installed.pair.fingerprint()
            try withTProxy(installed.options + ["-w", "2"]) { proxy in
                func shown() throws -> Set<String> {
                    // By each of the workers, as far as chance goes.
                    Set(try (0..<6).map { _ in try Certificates.fingerprint(shownOn: proxy.port) })
                }
                /// Nobody waits for the routers, which are replaced at the same time: unasked they take a second.
                func hangUp(expecting line: String, count: Int = 1) throws {
                    proxy.process.signal(SIGHUP)
                    try proxy.process.line(with: line, count: count)
                }
                #expect(try shown() == [first])

                // What has not changed is not worth a line.
                try hangUp(expecting: "reloaded: 2 workers")
                #expect(!proxy.process.text.contains("certificates"))

                // A client that is there keeps its session; who comes then gets the new certificate.
                let says = installed.folder.path + "/says"
                mkfifo(says, 0o600)
                // For both, so that nobody waits for the other to open it.
                let speaking = open(says, O_RDWR | O_CLOEXEC)
                defer { close(speaking) }
                let there = try Subprocess([
                    "sh", "-c", "openssl s_client -ign_eof -connect 127.0.0.1:\(proxy.port) <'\(says)' 2>&1",
                ])
                try there.line(with: "Verify return code")
                try installed.install(second)
                try hangUp(expecting: "certificates reloaded: new connections get them")
                let now = try second.fingerprint()
                try Deadline(in: patience).until("the new one everywhere") { try shown() == [now] }
                let order = "{\"report\": true}\n"
                #expect(write(speaking, order, order.utf8.count) == order.utf8.count)
                #expect(try there.end() == 0)
                #expect(there.text.contains("\"connection\""))

                // A key of another certificate, a file of nothing, no file at all.
                try installed.install(certificate: third.certificate, key: second.key)
                try hangUp(expecting: "certificates not reloaded: ")
                #expect(try shown() == [now])
                try Data("nothing\n".utf8).write(to: URL(filePath: installed.pair.certificate))
                try hangUp(expecting: "certificates not reloaded: ", count: 2)
                unlink(installed.pair.certificate)
                try hangUp(expecting: "certificates not reloaded: ", count: 3)
                let lines = proxy.process.lines.filter { $0.contains("certificates not reloaded: ") }
                #expect(lines.count == 3)
                #expect(
                    lines.allSatisfy { $0.contains(installed.pair.certificate) && $0.hasSuffix("the old ones go on") })
                #expect(lines[0].contains("key values mismatch"))
                #expect(lines[2].contains("cannot be read: No such file or directory"))
                // Workers that come later get what the others have.
                proxy.process.signal(SIGTTIN)
                try proxy.process.line(with: "worker 3 (pid")
                let old = proxy.workers
                for worker in old { kill(worker, SIGTERM) }
                try Deadline(in: patience).until("other workers") {
                    proxy.workers.count == 3 && proxy.workers.allSatisfy { !old.contains($0) }
                }
                #expect(try shown() == [now])

                try installed.install(third)
                proxy.process.signal(SIGHUP)
                try proxy.process.line(with: "certificates reloaded: new connections get them", count: 2)
                let last = try third.fingerprint()
                try Deadline(in: patience).until("the last one everywhere") { try shown() == [last] }
            }
        }

        // MARK: OCSP

        @Test(
            "clients that ask get the OCSP response beside the certificate, a new one after HUP, none that is no good")
        func stapled() throws {
            let installed = try Installed()
            let (certificates, leaf) = (installed.certificates, try installed.certificates.leaf("first"))
            try installed.install(leaf)
            let other = try certificates.leaf("other")
            let file = installed.pair.certificate + ".ocsp"
            func put(_ response: String) { rename(response, file) }
            put(try certificates.response(of: leaf, days: 1))
            let first = try Certificates.nextUpdate(in: file)
            try withTProxy(installed.options) { proxy in
                var hangUps = 0
                /// Nobody waits for the routers, which are replaced at the same time.
                func hangUp(_ expected: Substring?) throws {
                    hangUps += 1
                    proxy.process.signal(SIGHUP)
                    try proxy.process.line(with: "certificates reloaded", count: hangUps)
                    try Deadline(in: patience).until("the next response") {
                        try Certificates.nextUpdate(shownOn: proxy.port) == expected
                    }
                }
                for version in ["-tls1_2", "-tls1_3"] {
                    #expect(try Certificates.nextUpdate(shownOn: proxy.port, version) == first)
                }
                put(try certificates.response(of: leaf, days: 2))
                let second = try Certificates.nextUpdate(in: file)
                #expect(first != nil && second != nil && second != first)
                try hangUp(second)

                // It is not the certificate's.
                put(try certificates.response(of: other, days: 1))
                try hangUp(nil)
                let line = try proxy.process.line(with: "not stapled: \(file): it is about another certificate")
                #expect(line.contains("warning"))

                put(try certificates.response(of: leaf, days: 3))
                try hangUp(try Certificates.nextUpdate(in: file))
                unlink(file)
                try hangUp(nil)
                #expect(proxy.process.lines.count { $0.contains("not stapled") } == 1)
            }
            // Nor does one that is none keep tproxy from its start.
            try Data("nothing\n".utf8).write(to: URL(filePath: file))
            try withTProxy(installed.options) { proxy in
                try proxy.process.line(with: "not stapled: \(file): it is no OCSP response (DER)")
                #expect(try Certificates.nextUpdate(shownOn: proxy.port) == nil)
            }
        }

        // MARK: Tickets

        /// Comes again with a session, which has to be resumed, until the right worker has served.
        private func expectResumed(
            _ what: String, _ port: UInt16, _ session: String, _ version: String,
            by isRight: (Substring) -> Bool = { _ in true }
        ) throws {
            try Deadline(in: patience).until(what) {
                let next = try Conversation(port: port, session: session, options: version)
                #expect(next.isResumed, "\(what), \(version): \(next.text)")
                return isRight(next.worker)
            }
        }

        @Test("a session ticket of one worker is good with the others, after HUP, and after an upgrade")
        func tickets() throws {
            let installed = try Installed()
            let second = try installed.certificates.leaf("second")
            let session = installed.folder.path + "/session"
            for version in ["-tls1_3", "-tls1_2"] {
                try withTProxy(installed.options + ["-w", "2", "-p", installed.folder.path + "/pid"]) { proxy in
                    let first = try Conversation(port: proxy.port, keep: session, options: version)
                    #expect(!first.isResumed)
                    try expectResumed("another worker", proxy.port, session, version) { $0 != first.worker }
                    // Other certificates, the same ticket keys.
                    try installed.install(second)
                    proxy.process.signal(SIGHUP)
                    try proxy.process.line(with: "certificates reloaded")
                    try proxy.process.line(with: "reloaded: 2 workers")
                    try expectResumed("after HUP", proxy.port, session, version)

                    proxy.process.signal(SIGUSR2)
                    let line = try proxy.process.line(with: "is ready; QUIT to this process")
                    let new = try #require(line.firstMatch(of: /process (\d+) is ready/).flatMap { pid_t($0.1) })
                    proxy.process.signal(SIGQUIT)
                    try proxy.process.line(with: "this process serves alone")
                    try Deadline(in: patience).until("the old one's end") { !Proc.isAlive(proxy.process.pid) }
                    try expectResumed("after an upgrade", proxy.port, session, version)
                    // Its own tickets are good, too.
                    let kept = try Conversation(port: proxy.port, keep: session, options: version)
                    #expect(!kept.isResumed)
                    try expectResumed("with the new one", proxy.port, session, version)
                    kill(new, SIGTERM)
                }
                try installed.install(try installed.certificates.leaf("first-\(version)"))
            }
        }

        // MARK: Who sees keys

        @Test(
            "only root reads the key: workers that are nobody serve with it, and their routers see nothing of it",
            .enabled(if: geteuid() == 0, "only root becomes somebody else"))
        func hidden() throws {
            let installed = try Installed()
            let second = try installed.certificates.leaf("second")
            let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            #expect(try Subprocess.run(nobody + ["cat", installed.pair.key]).status != 0)
            try withTProxy(installed.options + ["-u", "nobody", "-w", "2"]) { proxy in
                func expectHidden(_ round: Int) throws {
                    #expect(try Conversation(port: proxy.port).worker != "")
                    let workers = proxy.workers
                    #expect(workers.count == 2)
                    for worker in workers {
                        #expect(try Proc.text("\(worker)/status").contains("Uid:\t65534\t"))
                        // What held the keys on their way is closed.
                        let kept = try Proc.descriptors(worker).values.filter { $0.contains("tproxy-tls") }
                        #expect(kept.isEmpty)
                        // A process of the same user, as the router is, can read memory and descriptors of neither kind.
                        for name in ["mem", "environ", "maps", "auxv"] {
                            let (status, text) = try Subprocess.run(
                                nobody + ["head", "-c1", "/proc/\(worker)/\(name)"])
                            #expect(status != 0 && text.contains("Permission denied"), "\(name): \(text)")
                        }
                        #expect(try Subprocess.run(nobody + ["ls", "/proc/\(worker)/fd"]).status != 0)
                        let routers = proxy.routers(of: worker)
                        #expect(!routers.isEmpty)
                        for router in routers {
                            let all = try Proc.descriptors(router)
                            #expect(!all.values.contains { $0.contains("memfd") || $0.contains("/tls.") }, "\(all)")
                            // The socket three times at most (the test's router copies it), and the pipe to the log.
                            #expect(Set(all.values).count == 2, "\(all)")
                            // It is as free as ever: tproxy takes files from it.
                            #expect(try Subprocess.run(nobody + ["ls", "/proc/\(router)/fd"]).status == 0)
                            let environment = try Proc.text("\(router)/environ")
                            #expect(!environment.contains("TPROXY_"))
                        }
                        let arguments = try Proc.text("\(worker)/cmdline") + Proc.text("\(worker)/environ")
                        #expect(!arguments.contains("PRIVATE KEY"))
                    }
                }
                try expectHidden(1)
                try installed.install(second)
                proxy.process.signal(SIGHUP)
                try proxy.process.line(with: "certificates reloaded")
                try proxy.process.line(with: "reloaded: 2 workers")
                // Old routers leave in their own time.
                try Deadline(in: patience).until("one router each") {
                    proxy.workers.allSatisfy { proxy.routers(of: $0).count == 1 }
                }
                try expectHidden(2)
                let fingerprint = try second.fingerprint()
                #expect(try Certificates.fingerprint(shownOn: proxy.port) == fingerprint)
                // The arbiter keeps one parcel, not each that ever was.
                let parcels = try Proc.descriptors(proxy.process.pid).values.filter { $0.contains("tproxy-tls") }
                #expect(parcels.count == 1)
            }
        }

        /// How many times a text is in the memory that a process writes to.
        private func count(of text: Substring, in process: pid_t) throws -> Int {
            let memory = try FileHandle(forReadingFrom: URL(filePath: "/proc/\(process)/mem"))
            var count = 0
            for area in try Proc.text("\(process)/maps").split(separator: "\n") {
                guard let match = area.firstMatch(of: /^([0-9a-f]+)-([0-9a-f]+) rw/),
                    let start = UInt64(match.1, radix: 16), let end = UInt64(match.2, radix: 16)
                else { continue }
                try memory.seek(toOffset: start)
                guard let bytes = try memory.read(upToCount: Int(end - start)) else { continue }
                var rest = bytes[...]
                while let found = rest.range(of: Data(text.utf8)) {
                    count += 1
                    rest = rest[found.upperBound...]
                }
            }
            return count
        }

        @Test(
            "no file of a key stays in memory, neither the arbiter's nor a worker's",
            .enabled(if: geteuid() == 0, "only root reads such memory"))
        func cleared() throws {
            let installed = try Installed()
            let second = try installed.certificates.leaf("second")
            try withTProxy(installed.options) { proxy in
                func expectCleared() throws {
                    // The line in the middle.
                    let line = try String(contentsOfFile: installed.pair.key, encoding: .utf8).split(separator: "\n")[2]
                    for process in [proxy.process.pid] + proxy.workers {
                        #expect(try count(of: line, in: process) == 0)
                    }
                }
                #expect(try count(of: "tproxy: master", in: proxy.process.pid) > 0)
                try expectCleared()
                try installed.install(second)
                proxy.process.signal(SIGHUP)
                try proxy.process.line(with: "certificates reloaded")
                try proxy.process.line(with: "reloaded: 1 worker")
                try expectCleared()
            }
        }

        @Test(
            "an arbiter that is nobody from the start can do all that it does with hidden memory",
            .enabled(if: geteuid() == 0, "only root becomes somebody else"))
        func nobody() throws {
            let installed = try Installed()
            for path in [installed.folder.path, installed.pair.certificate, installed.pair.key] {
                chown(path, 65534, 65534)
            }
            let proxy = try TProxy(
                installed.options + ["-p", installed.folder.path + "/pid"],
                prefix: ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
            let arbiter = proxy.process.pid
            #expect(try Conversation(port: proxy.port).isResumed == false)
            proxy.process.signal(SIGTTIN)
            try proxy.process.line(with: "worker 2 (pid")
            proxy.process.signal(SIGUSR1)
            proxy.process.signal(SIGHUP)
            try proxy.process.line(with: "reloaded: 2 workers")
            proxy.process.signal(SIGUSR2)
            let line = try proxy.process.line(with: "is ready; QUIT to this process")
            let new = try #require(line.firstMatch(of: /process (\d+) is ready/).flatMap { pid_t($0.1) })
            for process in [arbiter, new] + Proc.children(of: new) {
                let (status, text) = try Subprocess.run([
                    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "head", "-c1",
                    "/proc/\(process)/mem",
                ])
                #expect(status != 0 && text.contains("Permission denied"), "\(process): \(text)")
            }
            proxy.process.signal(SIGQUIT)
            try proxy.process.line(with: "this process serves alone")
            #expect(try Conversation(port: proxy.port).isResumed == false)
            kill(new, SIGTERM)
            #expect(try proxy.process.end() == 0)
        }

        @Test("whoever holds keys leaves no core", .enabled(if: geteuid() == 0, "a core is for root to allow"))
        func noCore() throws {
            // The limit says that there may be one; only the process itself says no.
            let installed = try Installed()
            let proxy = try TProxy(
                installed.options,
                prefix: ["sh", "-c", "cd '\(installed.folder.path)' && ulimit -c unlimited && exec \"$@\"", "sh"])
            let worker = try proxy.worker()
            kill(worker, SIGSEGV)
            let line = try proxy.process.line(with: "died of SIGSEGV")
            #expect(!line.contains("core dumped"), "\(line)")
            #expect(try proxy.stop() == 0)
        }
    }
}
