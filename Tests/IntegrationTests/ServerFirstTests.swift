import Foundation
import Glibc
import Testing

/// Where a program is, in the folders of system programs too, which not every user searches.
private func path(of program: String) -> String? {
    let searched = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map(String.init)
    return (searched + ["/usr/local/sbin", "/usr/sbin", "/sbin"]).map { "\($0)/\(program)" }
        .first { access($0, X_OK) == 0 }
}

/// sshd as whoever runs the tests: keys and configuration of its own, on a port that was free a moment ago.
private struct SSHServer {
    let process: Subprocess
    let address: String
    private let folder = Folder()

    init() throws {
        let port = try deadPort()
        address = "127.0.0.1:\(port)"
        // As root it wants a folder that belongs to nobody; else it does without.
        if geteuid() == 0 { mkdir("/run/sshd", 0o755) }
        for key in ["host", "client"] {
            let made = try Subprocess.run([
                "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "\(folder.path)/\(key)",
            ])
            try #require(made.status == 0, "\(made.text)")
        }
        let configuration = try folder.file(
            "sshd_config",
            """
            ListenAddress 127.0.0.1:\(port)
            HostKey \(folder.path)/host
            AuthorizedKeysFile \(folder.path)/client.pub
            PidFile none
            StrictModes no
            PasswordAuthentication no
            KbdInteractiveAuthentication no
            PermitRootLogin prohibit-password
            UsePAM no
            """)
        let sshd = try #require(path(of: "sshd"))
        process = try Subprocess([sshd, "-D", "-e", "-f", configuration])
        try process.line(with: "Server listening")
    }

    /// What a real client needs to log in and run a command.
    func client(port: UInt16, _ command: String) -> [String] {
        [
            "ssh", "-F", "none", "-p", "\(port)", "-i", "\(folder.path)/client", "-o", "IdentitiesOnly=yes",
            "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new",
            "-o", "UserKnownHostsFile=\(folder.path)/known", "-o", "ConnectTimeout=20", "127.0.0.1", command,
        ]
    }
}

extension IntegrationTests {
    /// Real servers that speak first, and one whose client does, behind one port.
    @Suite struct ServerFirst {
        private static let example = Repository.example("smtp_or_ssh.py")

        /// Sends a mail with Python's own client and tells what the server said at the end.
        private func mail(port: UInt16, subject: String, from address: String = "127.0.0.1") throws -> String {
            let sent = try Subprocess.run([
                "python3", "-c",
                """
                import smtplib, sys
                with smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=20, source_address=(sys.argv[3], 0)) as client:
                    client.sendmail("a@example.org", ["b@example.org"], "Subject: " + sys.argv[2] + "\\r\\n\\r\\nHello.\\r\\n")
                print("sent")
                """, "\(port)", subject, address,
            ])
            return sent.text
        }

        @Test(
            "ssh logs in and runs a command, and mail is delivered, at one port; who is silent or known is greeted",
            .enabled(if: path(of: "sshd") != nil && has("ssh") && has("aiosmtpd"), "sshd, ssh or aiosmtpd is missing"))
        func sshAndMail() throws {
            let ssh = try SSHServer()
            let port = try deadPort()
            let smtp = try Subprocess([
                "aiosmtpd", "-n", "-d", "-c", "aiosmtpd.handlers.Debugging", "stderr", "-l", "127.0.0.1:\(port)",
            ])
            try Deadline(in: patience).until("aiosmtpd") { (try? Peer(port: port)) != nil }
            try withTProxy(
                ["--silence", "300"], script: [Self.example],
                environment: ["SMTP": "127.0.0.1:\(port)", "SSH": ssh.address, "MAIL_FROM": "127.0.0.2/32"]
            ) { proxy in
                for round in 1...3 {
                    let answer = try Subprocess.run(ssh.client(port: proxy.port, "echo $((6 * 7)) from \(round)"))
                    #expect(answer.status == 0 && answer.text.contains("42 from \(round)"), "\(answer.text)")
                }
                // Bulk both ways, and the status of the command at the end.
                let large = try Subprocess.run(
                    ssh.client(port: proxy.port, "head -c 3000000 /dev/zero | wc -c; exit 7"))
                #expect(large.status == 7 && large.text.contains("3000000"), "\(large.text)")
                #expect(try mail(port: proxy.port, subject: "by silence") == "sent")
                try smtp.line(with: "Subject: by silence")
                #expect(try mail(port: proxy.port, subject: "by address", from: "127.0.0.2") == "sent")
                try smtp.line(with: "Subject: by address")
                let notes = try proxy.accesses(6).map { $0["note"] }
                #expect(notes == ["ssh", "ssh", "ssh", "ssh", "silent", "known"])
            }
            withExtendedLifetime((ssh, smtp)) {}
        }

        @Test(
            "MariaDB greets its clients through tproxy, beside ssh",
            .enabled(
                if: path(of: "sshd") != nil && has("ssh") && path(of: "mariadbd") != nil && has("mariadb-install-db")
                    && has("mariadb"), "sshd, ssh or mariadb-server is missing"))
        func database() throws {
            let ssh = try SSHServer()
            let folder = Folder()
            let (data, port) = ("\(folder.path)/data", try deadPort())
            // As root it runs as the user that its package made.
            let user = geteuid() == 0 ? ["--user=mysql"] : []
            let made = try Subprocess.run(
                [
                    "mariadb-install-db", "--no-defaults", "--datadir=\(data)", "--skip-test-db",
                    "--auth-root-authentication-method=normal",
                ] + user)
            try #require(made.status == 0, "\(made.text)")
            let server = try Subprocess(
                [
                    try #require(path(of: "mariadbd")), "--no-defaults", "--datadir=\(data)", "--socket=\(data)/socket",
                    "--port=\(port)", "--bind-address=127.0.0.1", "--pid-file=\(data)/pid",
                ] + user)
            try server.line(with: "ready for connections", within: 60)
            try withTProxy(
                ["--silence", "300"], script: [Self.example],
                environment: ["SMTP": "127.0.0.1:\(port)", "SSH": ssh.address]
            ) { proxy in
                func ask(_ statement: String) throws -> (status: Int32, text: String) {
                    try Subprocess.run([
                        "mariadb", "--no-defaults", "-h", "127.0.0.1", "-P", "\(proxy.port)", "-u", "root", "-N", "-B",
                        "-e", statement,
                    ])
                }
                let sum = try ask("select 6 * 7")
                #expect(sum.status == 0 && sum.text == "42", "\(sum.text)")
                let large = try ask("select length(repeat('x', 3000000)), repeat('y', 3)")
                #expect(large.text == "3000000\tyyy")
                let answer = try Subprocess.run(ssh.client(port: proxy.port, "echo beside"))
                #expect(answer.status == 0 && answer.text.contains("beside"), "\(answer.text)")
                #expect(try proxy.accesses(3).map { $0["note"] } == ["silent", "silent", "ssh"])
            }
            server.signal(SIGTERM)
            try server.end(within: 30)
        }
    }
}
