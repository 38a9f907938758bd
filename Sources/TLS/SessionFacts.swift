// What was agreed with a peer, as values.

import Addressing
import COpenSSL
import Glibc
public import RouterProtocol

extension TLSSession {
    /// What was agreed with a client, once the handshake is done.
    public func facts() -> TLSFacts { TLS.facts(of: ssl) }

    /// The name that the client asked for, in lower case and without a final dot; nil without one, and for what is no
    /// name.
    public var serverName: String? { TLS.serverName(of: ssl) }
}

/// What was agreed with a client.
func facts(of ssl: OpaquePointer) -> TLSFacts {
    var name: UnsafePointer<UInt8>?
    var count: UInt32 = 0
    SSL_get0_alpn_selected(ssl, &name, &count)
    let cipher = SSL_get_current_cipher(ssl).flatMap { SSL_CIPHER_get_name($0) }
    return TLSFacts(
        version: String(cString: SSL_get_version(ssl)), cipher: cipher.map { String(cString: $0) } ?? "",
        sni: serverName(of: ssl),
        alpn: name.map { String(decoding: UnsafeBufferPointer(start: $0, count: Int(count)), as: UTF8.self) },
        clientCertificate: clientCertificate(of: ssl))
}

/// The name that a client asks for, in lower case; nil without one, and for what is no name.
func serverName(of ssl: OpaquePointer) -> String? {
    guard let name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name) else { return nil }
    // OpenSSL has refused names with a NUL, and longer ones.
    return hostName(UnsafeRawBufferPointer(start: name, count: strnlen(name, 256)))
}

/// A client's certificate, if it was verified.
private func clientCertificate(of ssl: OpaquePointer) -> TLSFacts.Certificate? {
    guard let x509 = SSL_get0_peer_certificate(ssl), SSL_get_verify_result(ssl) == Int(X509_V_OK) else { return nil }
    var digest = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
    var count: UInt32 = 0
    guard X509_digest(x509, EVP_sha256(), &digest, &count) == 1 else {
        ERR_clear_error()
        return nil
    }
    return TLSFacts.Certificate(
        subject: distinguishedName(X509_get_subject_name(x509)), issuer: distinguishedName(X509_get_issuer_name(x509)),
        names: Array(alternativeNames(of: x509).lazy.compactMap(shown).prefix(TLSFacts.alternativeNamesMax)),
        fingerprint: String(decoding: digest.prefix(Int(count)).flatMap(hexDigits), as: UTF8.self))
}

private func hexDigits(_ byte: UInt8) -> [UInt8] {
    [byte >> 4, byte & 15].map { $0 < 10 ? UInt8(ascii: "0") &+ $0 : UInt8(ascii: "a") &- 10 &+ $0 }
}

/// A name as in RFC 2253, in ASCII. Of one that is longer than what is told there is a little more than that.
private func distinguishedName(_ name: OpaquePointer?) -> String {
    guard let name, let bio = BIO_new(BIO_s_mem()) else { return "" }
    defer { BIO_free(bio) }
    guard tp_X509_NAME_print(bio, name) >= 0 else {
        ERR_clear_error()
        return ""
    }
    var text = [UInt8](repeating: 0, count: TLSFacts.distinguishedNameBytesMax &+ 1)
    let count = BIO_read(bio, &text, Int32(clamping: text.count))
    return String(decoding: text.prefix(Int(max(0, count))), as: UTF8.self)
}

/// An alternative name with its kind before it; nil for what is not of visible ASCII all through: a name with a NUL is
/// none.
private func shown(_ kind: Int32, _ bytes: [UInt8]) -> String? {
    let prefix: String
    switch kind {
    case GEN_DNS: prefix = "DNS:"
    case GEN_EMAIL: prefix = "email:"
    case GEN_URI: prefix = "URI:"
    case GEN_IPADD:
        func number<Number: FixedWidthInteger>(_ bytes: ArraySlice<UInt8>) -> Number {
            bytes.reduce(0) { $0 << 8 | Number($1) }
        }
        return switch bytes.count {
        case 4: "IP:\(IPv4Address(bits: number(bytes[...])))"
        case 16: "IP:\(IPv6Address(high: number(bytes[..<8]), low: number(bytes[8...])))"
        default: nil
        }
    default: return nil
    }
    guard !bytes.isEmpty, bytes.allSatisfy({ (0x21...0x7e).contains($0) }) else { return nil }
    return prefix + String(decoding: bytes, as: UTF8.self)
}
