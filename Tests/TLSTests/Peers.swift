// Both ends of TLS as tests want them.

import Config
import RouterProtocol

@testable import TLS

/// A root that signs, and what is needed to trust it.
struct Authority {
    let root: TestCertificate
    let file: MemoryFile

    init(_ name: String = "root") throws {
        root = try TestCertificate(commonName: name, isAuthority: true)
        file = try MemoryFile(root.pem)
    }

    func sign(
        _ names: [String], commonName: String? = nil, days: ClosedRange<Int> = -1...30
    ) throws -> TestCertificate {
        try TestCertificate(names, commonName: commonName, issuer: root, days: days)
    }

    /// Arguments that trust it.
    func arguments(_ change: (inout TLSArguments) -> Void = { _ in }) -> TLSArguments {
        var arguments = TLSArguments()
        arguments.authoritiesFile = file.path
        change(&arguments)
        return arguments
    }
}

/// TLS with remotes by these arguments.
func remote(_ arguments: TLSArguments) throws -> RemoteTLS {
    try RemoteTLS(arguments, authorities: SystemAuthorities())
}

/// A listener with these certificates.
func listener(
    _ certificates: TestCertificate..., ticketKeys: [[UInt8]] = [], authorities: [TestCertificate]? = nil,
    change: (inout TLSSettings) -> Void = { _ in }
) throws -> ListenerTLS {
    var settings = TLSSettings(certificateFiles: ["a.pem"])
    change(&settings)
    return try ListenerTLS(
        TLSMaterial(
            certificates: certificates.map { $0.material() }, clientAuthorities: authorities?.flatMap(\.pem),
            ticketKeys: ticketKeys), settings)
}
