import Foundation
import Testing

extension IntegrationTests {
    /// Handshakes of more bytes than one look at the socket brings.
    @Suite struct TLSLarge {
        private static let names = ["localhost"] + (0..<1100).map { "name-\($0).of-somebody-with-many.example" }

        @Test(
            "a client and a remote with certificates of more than two records are shaken hands with",
            arguments: ["1.2", "1.3"])
        func certificates(version: String) throws {
            let certificates = try Certificates()
            let leaf = try certificates.leaf()
            let client = try certificates.leaf("large-client", names: Self.names, use: .client)
            let remote = try certificates.leaf("large-remote", names: Self.names)
            let file = try certificates.joined("large.pem", [client.certificate, client.key])
            #expect(try String(contentsOfFile: file, encoding: .utf8).utf8.count > 50_000)
            let origin = try TLSOrigin(remote, in: certificates, ["recv=5", "send=there", "notify", "all"])
            try withTProxy([
                "--ssl-certfile", leaf.certificate, "--ssl-keyfile", leaf.key, "--ssl-ca-certs",
                certificates.authorityFile, "--ssl-cert-reqs", "2",
            ]) { proxy in
                let verdict = """
                    {"remote": "localhost:\(origin.port)", "ssl": true, \
                    "ssl_args": {"ca_certs": "\(certificates.authorityFile)"\(version == "1.2" ? #", "ssl_version": 5"# : "")}}
                    """
                let seen = try TLSClient.run(
                    proxy.port, [#"send={"answer": \#(verdict), "rest": true}\n"# + "hello", "notify", "all"],
                    options: ["--cert", file, "--max", version])
                #expect(seen.last?.all == "there" && seen.last?.ending == "end", "\(seen)")
            }
        }
    }
}
