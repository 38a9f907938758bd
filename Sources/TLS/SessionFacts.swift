// What was agreed with a peer, as values.

import COpenSSL

/// The name that a client asks for, in lower case; nil without one, and for what is no name.
func serverName(of ssl: OpaquePointer) -> String? {
    guard let name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name) else { return nil }
    // OpenSSL has refused names with a NUL, and longer ones.
    return hostName(UnsafeRawBufferPointer(start: name, count: strnlen(name, 256)))
}

/// Why a peer's certificate was refused, in OpenSSL's own words: "certificate has expired", "hostname mismatch". Nil
/// when it was not looked at, or is good.
func verificationFailure(of ssl: OpaquePointer) -> String? {
    let result = SSL_get_verify_result(ssl)
    guard result != Int(X509_V_OK), let words = X509_verify_cert_error_string(result) else { return nil }
    return String(cString: words)
}
