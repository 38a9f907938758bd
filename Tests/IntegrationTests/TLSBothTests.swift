import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// TLS with the client and with the remote: two streams of records, of which each end and each cut is the other's.
    @Suite(.enabled(if: has("openssl"))) struct TLSBoth {
        private let tls: LocalTLS

        init() throws { tls = try LocalTLS() }

        /// The line for told.py: TLS to this remote, which gets what comes behind it.
        private func order(_ address: String) -> String {
            #"{"answer": {"remote": "\#(address)", \#(tls.verdict)}, "rest": true}"#
        }

        /// The same as a client's step.
        private func step(_ origin: TLSOrigin, _ rest: String) -> String {
            "send=" + order(origin.address) + "\\n" + rest
        }

        @Test("whoever ends first still gets all that the other one has to say")
        func halfClose() throws {
            let afterClient = try tls.origin(["all", "send=the answer", "notify"])
            let beforeClient = try tls.origin(["recv=8", "send=all there is", "notify", "all"])
            try withTProxy(tls.listening) { proxy in
                var seen = try TLSClient.run(
                    proxy.port, [step(afterClient, "question"), "notify", "all"], options: tls.trusting)
                #expect(seen.last?.all == "the answer" && seen.last?.ending == "end", "\(seen)")
                var remote = try afterClient.seen(2).last
                #expect(remote?.all == "question" && remote?.ending == "end", "\(String(describing: remote))")

                seen = try TLSClient.run(
                    proxy.port, [step(beforeClient, "question"), "all", "send=afterwards", "notify"],
                    options: tls.trusting)
                #expect(seen.last?.all == "all there is" && seen.last?.ending == "end", "\(seen)")
                remote = try beforeClient.seen(3).last
                #expect(remote?.all == "afterwards" && remote?.ending == "end", "\(String(describing: remote))")
                #expect(try proxy.accesses(2).allSatisfy { $0["reason"] == "done" })
            }
        }

        @Test("a client that is cut is a reset to the remote, and never an end", arguments: ["fin", "rst"])
        func cutClient(end: String) throws {
            let origin = try tls.origin(["recv=11", "send=go", "all"])
            try withTProxy(tls.listening) { proxy in
                _ = try TLSClient.run(proxy.port, [step(origin, "half an upl"), "recv=2", end], options: tls.trusting)
                let remote = try origin.seen(3).last
                #expect(remote?.all == "" && remote?.ending == "reset", "\(String(describing: remote))")
                let reason = try proxy.accesses(1)[0]["reason"]
                #expect(reason == (end == "fin" ? "client_truncated" : "client_reset"))
            }
        }

        @Test("a remote that is cut is a reset to the client, and never an end", arguments: ["fin", "rst"])
        func cutRemote(end: String) throws {
            let origin = try tls.origin(["recv=8", "send=half an ans", "gate=\(gate)", end])
            try withTProxy(tls.listening) { proxy in
                let client = try TLSClient.start(
                    proxy.port, [step(origin, "question"), "recv=11", "all"], options: tls.trusting)
                try client.line(with: "half an ans")
                _ = try Subprocess.run(["sh", "-c", "echo go >'\(gate)'"])
                try client.end()
                let seen = Seen.of(client.lines).last
                #expect(seen?.all == "" && seen?.ending == "reset", "\(String(describing: seen))")
                #expect(try proxy.accesses(1)[0]["reason"] == (end == "fin" ? "remote_truncated" : "remote_reset"))
            }
        }

        /// A FIFO that a peer waits at.
        private var gate: String {
            let path = tls.certificates.path + "/gate"
            mkfifo(path, 0o600)
            return path
        }

        @Test("much arrives with the right hash, both ways at once, with TLS to the remote", arguments: [false, true])
        func bulk(fromTLS: Bool) throws {
            // 1024 is a gibibyte each way.
            let megabytes = Int(ProcessInfo.processInfo.environment["TLS_TEST_MEGABYTES"] ?? "") ?? 24
            let count = megabytes << 20
            let origin = try tls.origin(["echo"])
            try withTProxy(fromTLS ? tls.listening : []) { proxy in
                if fromTLS {
                    let seen = try TLSClient.run(
                        proxy.port, [step(origin, ""), "both=\(count)", "notify", "all"], options: tls.trusting,
                        within: 600)
                    #expect(seen.first?.both == count && seen.first?.same == true, "\(seen)")
                    #expect(seen.last?.count == 0 && seen.last?.ending == "end", "\(seen)")
                } else {
                    let (status, text) = try Subprocess.run(
                        [
                            "python3", "-S", Repository.helper("bulk.py"), "client", "\(proxy.port)",
                            order(origin.address),
                        ], environment: ["BULK_MEGABYTES": "\(megabytes)"], within: 600)
                    let sent = try #require(text.firstMatch(of: /sent ([0-9a-f]{64})/), "\(text)")
                    #expect(status == 0 && text.contains("received \(count) \(sent.1)"), "\(text)")
                }
                let access = try proxy.accesses(1)[0]
                #expect(access["to_remote"] == "\(count)" && access["to_client"] == "\(count)", "\(access)")
                #expect(access["reason"] == "done", "\(access)")
            }
        }

        /// A server of openssl's own.
        private func server(_ options: String...) throws -> (process: Subprocess, address: String) {
            let process = try Subprocess(
                ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", tls.leaf.certificate, "-key", tls.leaf.key]
                    + options
            )
            let line = try process.line(with: "ACCEPT ")
            let port = try #require(line.split(separator: ":").last)
            return (process, "127.0.0.1:\(port)")
        }

        @Test(
            "curl and openssl s_server have both their own TLS", .enabled(if: has("curl")), arguments: ["1.2", "1.3"])
        func curl(version: String) throws {
            let site = try server("-www")
            let environment = ["REMOTE": site.address, "CA_CERTS": tls.certificates.authorityFile, "SITE": "localhost"]
            try withTProxy(
                tls.listening, script: [Repository.example("tls_remote.py")], environment: environment
            ) { proxy in
                let (status, page) = try Subprocess.run([
                    "curl", "-sS", "--noproxy", "*", "--max-time", "20", "--cacert", tls.certificates.authorityFile,
                    "--tlsv\(version)", "--tls-max", version, "https://localhost:\(proxy.port)/",
                ])
                // What the server says is of its own TLS.
                #expect(status == 0 && page.contains("TLSv1.3") && page.lowercased().contains("</html>"), "\(page)")
                #expect(try proxy.accesses(1)[0]["reason"] == "done")
            }
            withExtendedLifetime(site.process) {}
        }

        @Test("openssl s_client and s_server converse", arguments: ["-tls1_2", "-tls1_3"])
        func openssl(version: String) throws {
            // It says every line backwards, and ends at this one.
            let site = try server("-rev")
            try withTProxy(tls.listening) { proxy in
                let lines = "'\(order(site.address))' 'not yet' CLOSE"
                let (status, text) = try Subprocess.run([
                    "sh", "-c",
                    """
                    printf '%s\\n' \(lines) | openssl s_client -quiet \(version) -verify_return_error \
                    -CAfile '\(tls.certificates.authorityFile)' -connect 127.0.0.1:\(proxy.port) -servername localhost
                    """,
                ])
                #expect(status == 0 && text.contains("tey ton"), "\(text)")
                #expect(try proxy.accesses(1)[0]["reason"] == "done")
            }
            withExtendedLifetime(site.process) {}
        }
    }
}
