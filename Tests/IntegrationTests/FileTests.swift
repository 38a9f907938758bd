import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// Files as answers, and what is not one.
    @Suite struct Files {
        private func get(_ proxy: TProxy, _ verdict: String, within time: Double = patience) throws -> (
            String, TProxy.Access
        ) {
            let client = try proxy.client(#"{"answer": \#(verdict)}"#)
            let text = try client.text(within: time)
            return (text, try proxy.access(client))
        }

        @Test("a file is sent from offset on, at most nbytes, behind the reply")
        func parts() throws {
            let folder = Folder()
            let path = try folder.file("file", "0123456789")
            try withTProxy { proxy in
                for (options, expected) in [
                    ("", "0123456789"), (#", "offset": 4"#, "456789"), (#", "offset": 4, "nbytes": 3"#, "456"),
                    (#", "nbytes": 0"#, ""), (#", "nbytes": 100"#, "0123456789"), (#", "offset": 100"#, ""),
                    (#", "offset": 9223372036854775807, "nbytes": 9223372036854775807"#, ""),
                    (#", "reply": "head\n", "offset": 8"#, "head\n89"),
                ] {
                    let (text, access) = try get(proxy, #"{"file": "\#(path)"\#(options)}"#)
                    #expect(text == expected, "\(options)")
                    #expect(access["verdict"] == "file" && access["reason"] == "file_sent", "\(access)")
                    #expect(access["to_client"] == "\(expected.utf8.count)", "\(access)")
                }
            }
        }

        @Test("a large file arrives whole, also at a client that reads slowly")
        func large() throws {
            let folder = Folder()
            let path = try folder.file("file", String(repeating: "0123456789abcdef", count: 2_000_000))
            try withTProxy { proxy in
                let client = try proxy.client(#"{"answer": {"file": "\#(path)"}}"#)
                #expect(try client.receive(1000).count == 1000)
                let other = try proxy.client(#"{"answer": {"close": "served"}}"#)
                #expect(try other.text() == "served")
                let (bytes, ending) = try client.drain(within: 60)
                #expect(bytes.count == 32_000_000 - 1000 && ending == .end)
                #expect(bytes.suffix(16) == Array("0123456789abcdef".utf8)[...])
            }
        }

        @Test(
            "what is no regular file is refused at once, with its reason",
            arguments: [
                "missing", "folder", "fifo", "/dev/zero", "socket", "secret/../missing",
            ])
        func notFiles(name: String) throws {
            let folder = Folder()
            mkdir("\(folder.path)/folder", 0o700)
            mkfifo("\(folder.path)/fifo", 0o600)
            let socket = try Origin(unix: "\(folder.path)/socket")
            let path = name.hasPrefix("/") ? name : "\(folder.path)/\(name)"
            try withTProxy { proxy in
                let client = try proxy.client(#"{"answer": {"file": "\#(path)"}, "on_error": {"close": "404\n"}}"#)
                #expect(try client.text(within: 3) == "404\n")
                #expect(try proxy.access(client)["reason"] == "file_failed")
                let report = try proxy.client(#"{"answer": {"file": "\#(path)"}, "on_error": "report"}"#)
                #expect(try report.text().contains(#""type": "file""#))
            }
            withExtendedLifetime(socket) {}
        }

        @Test("a file that becomes shorter while it is sent ends in a reset")
        func shrinks() throws {
            let folder = Folder()
            let path = try folder.file("file", String(repeating: "x", count: 50_000_000))
            try withTProxy { proxy in
                let client = try proxy.client(receiveBuffer: 4096)
                let port = client.localPort
                try client.send(#"{"answer": {"file": "\#(path)"}}"# + "\n")
                #expect(try client.receive(1000).count == 1000)
                truncate(path, 2000)
                #expect(try client.drain(within: 30).ending == .reset)
                #expect(try proxy.access(port: port)["reason"] == "file_shrank")
            }
        }

        @Test("a file that becomes shorter while it is sent over TLS ends in a reset, not in close_notify")
        func shrinksOverTLS() throws {
            let folder = Folder()
            let certificates = try Certificates()
            let pair = try certificates.leaf()
            let (path, gate) = (try folder.file("file"), "\(folder.path)/gate")
            truncate(path, 50_000_000)
            mkfifo(gate, 0o600)
            try withTProxy(["--ssl-certfile", pair.certificate, "--ssl-keyfile", pair.key]) { proxy in
                let worker = try proxy.worker()
                let client = try TLSClient.start(
                    proxy.port,
                    [#"send={"answer": {"file": "\#(path)"}}\n"#, "recv=1000", "gate=\(gate)", "all"])
                _ = try client.line(with: "recv")
                truncate(path, 2000)
                let before = try Proc.ticks(worker)
                close(open(gate, O_WRONLY | O_CLOEXEC))
                #expect(try client.end() == 0)
                #expect(Seen.of(client.lines).last?.ending == "reset", "\(client.lines.last?.suffix(200) ?? "")")
                #expect(try proxy.accesses(1)[0]["reason"] == "file_shrank")
                #expect(try Proc.ticks(worker) - before < 50)
            }
        }

        @Test("a descriptor of the router's is taken, from any language; what is no file is refused")
        func descriptors() throws {
            let folder = Folder()
            let path = try folder.file("file", "by descriptor\n")
            let script = try folder.file(
                "router.sh",
                """
                exec 7<\(path)
                while read -r line; do
                    id=${line#*'"id":'}
                    id=${id%%,*}
                    case $line in
                    *'"method":"proxy"'*) result='{"file":'${FD-7}'}' ;;
                    *) result=null ;;
                    esac
                    echo '{"jsonrpc":"2.0","id":'"$id"',"result":'"$result"'}'
                done
                """)
            try withTProxy(router: "sh \(script)") { proxy in
                for _ in 0..<3 {
                    let client = try proxy.client("anything")
                    #expect(try client.text() == "by descriptor\n")
                    #expect(try proxy.access(client)["reason"] == "file_sent")
                }
            }
            for descriptor in ["0", "2", "99"] {
                try withTProxy(router: "sh \(script)", environment: ["FD": descriptor]) { proxy in
                    let client = try proxy.client("anything")
                    #expect(try client.text() == "")
                    #expect(try proxy.access(client)["reason"] == "file_failed")
                }
            }
        }

        @Test("with --file-root no path leads out of that folder, neither by dots nor by links")
        func fileRoot() throws {
            let (folder, outside) = (Folder(), Folder())
            let secret = try outside.file("secret", "secret\n")
            _ = try folder.file("file", "inside\n")
            mkdir("\(folder.path)/sub", 0o700)
            symlink("../file", "\(folder.path)/sub/link")
            symlink(outside.path, "\(folder.path)/away")
            symlink(secret, "\(folder.path)/out")
            symlink("/proc/self/cwd", "\(folder.path)/magic")
            try withTProxy(["--file-root", folder.path]) { proxy in
                func ask(_ path: String) throws -> String {
                    let order = #"{"answer": {"file": "\#(path)"}, "on_error": "report"}"#
                    let client = try proxy.client(order)
                    return try client.text()
                }
                // As a URL has it, too.
                for path in ["file", "/file", "sub/link", "sub/../file", "//sub//link"] {
                    #expect(try ask(path) == "inside\n", "\(path)")
                }
                let away = "../" + (outside.path as NSString).lastPathComponent + "/secret"
                for path in [
                    away, "/" + away, "sub/../" + away, "away/secret", "out", secret, "..", "/", "sub", "magic/x",
                ] {
                    let answer = try ask(path)
                    #expect(answer.contains("file \(path): "), "\(path): \(answer)")
                }
                #expect(try ask(away).contains("leads out of --file-root"))
            }
            let (status, text) = try Subprocess.run(
                [
                    Repository.binary, "--router", Repository.python("told.py"), "-b", "127.0.0.1:0", "--file-root",
                    secret,
                ])
            #expect(status == 3 && text.contains("--file-root, \(secret), cannot be used: Not a directory"), "\(text)")
        }

        @Test("descriptors passed along are taken in order, and none is left open")
        func passed() throws {
            let folder = Folder()
            let path = try folder.file("file", "passed\n")
            try withTProxy(router: Repository.python("passing.py"), environment: ["PASSED": path]) { proxy in
                let worker = try proxy.worker()
                let before = try Proc.descriptors(worker).count
                for _ in 0..<50 {
                    let client = try proxy.client("file")
                    #expect(try client.text() == "passed\n")
                }
                // Several instead of one, none though one is promised, a socket instead of a file.
                for what in ["many", "two", "none", "socket"] {
                    let client = try proxy.client(what)
                    #expect(try client.text() == "", "\(what)")
                    #expect(try proxy.access(client)["reason"] == "file_failed", "\(what)")
                    try Deadline(in: patience).until("all closed") { try Proc.descriptors(worker).count <= before }
                    if what == "many" { try proxy.process.line(with: "did not come with the verdict") }
                }
                // One that comes with another answer is nobody's, least of all the next one's.
                let without = try proxy.client("unclaimed")
                #expect(try without.text() == "without")
                try proxy.process.line(with: "passed a descriptor beside a line that takes none")
                let client = try proxy.client("file")
                #expect(try client.text() == "passed\n")
                // And who has none does not get that of the next, though both lines come at once.
                let (promised, kept) = (try proxy.client("promised"), try proxy.client("kept"))
                #expect(try promised.text() == "")
                #expect(try kept.text() == "passed\n")
                // So that nobody lingers for them.
                for peer in [without, client, promised, kept] { peer.end() }
                try Deadline(in: patience).until("all closed") { try Proc.descriptors(worker).count <= before }
                for router in proxy.routers(of: worker) {
                    #expect(try Proc.descriptors(router).values.filter { $0 == path }.isEmpty)
                }
            }
        }
    }
}
