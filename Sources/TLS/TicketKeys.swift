// Sealing and opening session tickets (RFC 5077) with keys that all workers share.

import COpenSSL
import Config

/// Ticket keys: the first seals, all of them open.
final class TicketKeys {
    /// One after the other, each of a name, the key of the HMAC and the cipher's key. Cleared when it is freed.
    private let keys: UnsafeMutableRawBufferPointer
    /// Looked up once: doing so takes a lock and as long as the encryption itself.
    private let cipher: OpaquePointer

    private static let nameBytes = 16
    private static let macKeyBytes = 32

    init(_ keys: [[UInt8]]) throws(TLSFailure) {
        guard keys.allSatisfy({ $0.count == TLSMaterial.ticketKeyBytes })
        else { throw TLSFailure("a ticket key has \(TLSMaterial.ticketKeyBytes) bytes") }
        ERR_clear_error()
        guard let cipher = EVP_CIPHER_fetch(nil, "AES-256-CBC", nil) else { throw .fromQueue("TLS cannot be set up") }
        self.cipher = cipher
        self.keys = .allocate(byteCount: keys.count &* TLSMaterial.ticketKeyBytes, alignment: 1)
        for (index, key) in keys.enumerated() {
            UnsafeMutableRawBufferPointer(rebasing: self.keys[(index &* TLSMaterial.ticketKeyBytes)...])
                .copyBytes(from: key)
        }
    }

    deinit {
        OPENSSL_cleanse(keys.baseAddress, keys.count)
        keys.deallocate()
        EVP_CIPHER_free(cipher)
    }

    /// Prepares a new ticket: fills in the key's name and a random IV. The result is that of OpenSSL's callback.
    func seal(
        _ name: UnsafeMutablePointer<UInt8>, _ iv: UnsafeMutablePointer<UInt8>, _ context: OpaquePointer,
        _ mac: OpaquePointer
    ) -> Int32 {
        guard let key = keys.baseAddress?.assumingMemoryBound(to: UInt8.self),
            RAND_bytes(iv, EVP_CIPHER_get_iv_length(cipher)) == 1,
            EVP_EncryptInit_ex(context, cipher, nil, key + Self.nameBytes + Self.macKeyBytes, iv) == 1,
            tp_ticket_mac_init(mac, key + Self.nameBytes, Self.macKeyBytes) == 1
        else { return -1 }
        name.update(from: key, count: Self.nameBytes)
        return 1
    }

    /// Prepares to open a ticket. The result is that of OpenSSL's callback: 1 is good, 2 good, but to be followed by a
    /// new one, 0 of nobody's key. A ticket is followed by a new one when it is under an old key, or `isForOneUse`, as
    /// those of TLS 1.3 are (RFC 8446 C.4).
    func open(
        _ name: UnsafeMutablePointer<UInt8>, _ iv: UnsafeMutablePointer<UInt8>, _ context: OpaquePointer,
        _ mac: OpaquePointer, isForOneUse: Bool
    ) -> Int32 {
        guard let first = keys.baseAddress?.assumingMemoryBound(to: UInt8.self) else { return 0 }
        for offset in stride(from: 0, to: keys.count, by: TLSMaterial.ticketKeyBytes) {
            let key = first + offset
            guard CRYPTO_memcmp(key, name, Self.nameBytes) == 0 else { continue }
            guard EVP_DecryptInit_ex(context, cipher, nil, key + Self.nameBytes + Self.macKeyBytes, iv) == 1,
                tp_ticket_mac_init(mac, key + Self.nameBytes, Self.macKeyBytes) == 1
            else { return -1 }
            return offset == 0 && !isForOneUse ? 1 : 2
        }
        return 0
    }
}
