// What the authority of a certificate says of it (OCSP, RFC 6960). It is handed out with the certificate, so that clients need
// not ask the authority, who would learn where they go.

import COpenSSL
import Glibc

/// A response about one certificate. Its signature, and whether it calls the certificate good, are the client's to judge.
public struct OCSPResponse {
    /// DER, as clients get it.
    let bytes: [UInt8]
    /// Nobody believes it from then on: `nextUpdate`, in seconds since 1970. Nil when it does not say.
    private let end: Int?

    /// Whether clients can be given a response to the first certificate of a chain (PEM) today; if not, throws why not.
    /// `name`: its file, for messages.
    public static func check(_ bytes: [UInt8], of chain: [UInt8], name: String) throws(TLSFailure) {
        let certificates = try PEMReader(chain, name: name).certificates()
        guard try OCSPResponse(bytes, of: certificates[0], name: name).isCurrent(at: time(nil))
        else { throw TLSFailure("\(name): its nextUpdate has passed") }
    }

    /// Reads a response, which may be out of date.
    init(_ bytes: [UInt8], of certificate: Certificate, name: String) throws(TLSFailure) {
        ERR_clear_error()
        let (response, isWhole) = bytes.withUnsafeBufferPointer { bytes in
            var place = bytes.baseAddress
            let response = d2i_OCSP_RESPONSE(nil, &place, bytes.count)
            return (response, place == bytes.baseAddress.map { $0 + bytes.count })
        }
        defer {
            OCSP_RESPONSE_free(response)
            ERR_clear_error()
        }
        guard let response, isWhole else { throw TLSFailure("\(name): it is no OCSP response (DER)") }
        let status = OCSP_response_status(response)
        guard status == OCSP_RESPONSE_STATUS_SUCCESSFUL else {
            throw TLSFailure("\(name): it says \(String(cString: OCSP_response_status_str(Int(status))))")
        }
        guard let basic = OCSP_response_get1_basic(response)
        else { throw .fromQueue("\(name): nothing can be read in it") }
        defer { OCSP_BASICRESP_free(basic) }
        let singles = (0..<max(0, OCSP_resp_count(basic))).map { OCSP_resp_get0(basic, $0) }
        guard let single = singles.first(where: { Self.isAbout(certificate, OCSP_SINGLERESP_get0_id($0)) })
        else { throw TLSFailure("\(name): it is about another certificate") }
        self.bytes = bytes
        end = try Self.end(of: single, name)
    }

    func isCurrent(at now: Int) -> Bool { end.map { now < $0 } ?? true }

    /// By the certificate's number and its issuer's name. A response names the issuer's key, too, but that one's
    /// certificate need not be there.
    private static func isAbout(_ certificate: Certificate, _ id: OpaquePointer?) -> Bool {
        var name: UnsafeMutablePointer<ASN1_OCTET_STRING>?
        var number: UnsafeMutablePointer<ASN1_INTEGER>?
        var kind: OpaquePointer?
        guard let id, OCSP_id_get0_info(&name, &kind, nil, &number, id) == 1, let name,
            ASN1_INTEGER_cmp(number, X509_get0_serialNumber(certificate.x509)) == 0,
            let digestName = OBJ_nid2sn(OBJ_obj2nid(kind)), let algorithm = EVP_get_digestbyname(digestName)
        else { return false }
        var digest = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
        var count: UInt32 = 0
        guard X509_NAME_digest(X509_get_issuer_name(certificate.x509), algorithm, &digest, &count) == 1
        else { return false }
        return asn1Bytes(name).elementsEqual(digest.prefix(Int(count)))
    }

    private static func end(of single: OpaquePointer?, _ name: String) throws(TLSFailure) -> Int? {
        var next: UnsafeMutablePointer<ASN1_GENERALIZEDTIME>?
        OCSP_single_get0_status(single, nil, nil, nil, &next)
        guard let next else { return nil }
        var parts = tm()
        guard ASN1_TIME_to_tm(next, &parts) == 1 else { throw .fromQueue("\(name): its nextUpdate is no time") }
        return timegm(&parts)
    }
}
