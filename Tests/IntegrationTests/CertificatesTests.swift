// The certificates that other tests use are what they say they are.

import Foundation
import Testing

@Suite struct CertificatesTests {
    private func verify(_ certificates: Certificates, _ pair: Certificates.Pair, _ more: [String] = []) throws -> String
    {
        try Subprocess.run(
            ["openssl", "verify", "-CAfile", certificates.authorityFile] + more + [pair.certificate]
        ).text
    }

    @Test("leaves are good for their names, in their time, to those who know their authority")
    func leaves() throws {
        let certificates = try Certificates()
        let leaf = try certificates.leaf("one", names: ["one.test"], addresses: ["127.0.0.1"])
        #expect(
            try verify(certificates, leaf, ["-verify_hostname", "one.test", "-purpose", "sslserver"]).hasSuffix("OK"))
        #expect(try verify(certificates, leaf, ["-verify_ip", "127.0.0.1"]).hasSuffix("OK"))
        #expect(try verify(certificates, leaf, ["-verify_hostname", "two.test"]).contains("hostname mismatch"))
        let expired = try certificates.leaf("old", validity: .expired)
        #expect(try verify(certificates, expired).contains("certificate has expired"))
        let future = try certificates.leaf("new", validity: .future)
        #expect(try verify(certificates, future).contains("not yet valid"))
        let client = try certificates.client()
        #expect(try verify(certificates, client, ["-purpose", "sslclient"]).hasSuffix("OK"))
        #expect(try verify(certificates, client, ["-purpose", "sslserver"]).contains("unsuitable certificate purpose"))
        #expect(try verify(certificates, certificates.selfSigned()).contains("self-signed certificate"))
        #expect(try verify(Certificates(), leaf).contains("error"))
    }
}
