// Certificates and keys on their way from the arbiter, who may read them, to the workers: bytes in a piece of memory
// (memfd_create(2)) that only who is given its descriptor can open, and nobody can change. Not in the environment, not in
// arguments, not in a file.
//
// Each part is one byte that says what it is, four of its length, the most significant first, and itself.

public import Config
public import Linux
public import SystemPackage

/// `TLSMaterial`, sealed. The arbiter keeps one for the workers to come; whoever opens one is left with the only copy in
/// its own memory.
public struct TLSParcel: ~Copyable, Sendable {
    private enum Part: UInt8 {
        /// Begins a certificate; its chain and its key follow.
        case name = 1
        case chain
        case key
        case clientAuthorities
        case ticketKey
        /// Of the certificate before it.
        case ocspResponse
    }

    /// What the arbiter writes itself is beside what it reads from files.
    private static let bytesMax =
        Limits.certificateBytesMax + Limits.certificatesMax * Limits.ocspResponseBytesMax + (1 << 20)

    private let descriptor: Descriptor

    /// For a child or a packet: it stays ours.
    public var raw: Int32 { descriptor.raw }

    /// Packs a copy.
    public init(_ material: TLSMaterial) throws(Errno) {
        var bytes = Self.encoded(material)
        defer { bytes.wipe() }
        descriptor = try SharedMemory.sealedFile(name: "tproxy-tls", holding: bytes)
    }

    /// Takes over what came from the arbiter.
    public init(_ descriptor: consuming Descriptor) { self.descriptor = descriptor }

    /// What is in it. Whatever comes, it never traps.
    public func material() throws(InheritanceError) -> TLSMaterial {
        var bytes = try InheritanceError.system { () throws(Errno) in
            try SharedMemory.wholeContents(of: descriptor.raw, bytesMax: Self.bytesMax)
        }
        defer { bytes.wipe() }
        return try Self.decoded(bytes)
    }

    static func encoded(_ material: TLSMaterial) -> [UInt8] {
        var parts: [(Part, [UInt8])] = []
        for certificate in material.certificates {
            parts += [
                (.name, Array(certificate.name.utf8)), (.chain, certificate.chain), (.key, certificate.key),
            ]
            if let response = certificate.ocspResponse { parts.append((.ocspResponse, response)) }
        }
        if let authorities = material.clientAuthorities { parts.append((.clientAuthorities, authorities)) }
        parts += material.ticketKeys.map { (.ticketKey, $0) }
        var bytes: [UInt8] = []
        // Growing would leave copies behind.
        bytes.reserveCapacity(parts.reduce(0) { $0 + 5 + $1.1.count })
        for (part, content) in parts {
            bytes.append(part.rawValue)
            let length = UInt32(clamping: content.count)
            for shift in [24, 16, 8, 0] as [UInt32] { bytes.append(UInt8(truncatingIfNeeded: length >> shift)) }
            bytes += content
        }
        return bytes
    }

    static func decoded(_ bytes: [UInt8]) throws(InheritanceError) -> TLSMaterial {
        var material = TLSMaterial(certificates: [])
        var rest = bytes[...]
        while !rest.isEmpty {
            guard rest.count >= 5, let part = Part(rawValue: rest[rest.startIndex]) else { throw .notADocument }
            let length = rest.dropFirst().prefix(4).reduce(0) { $0 << 8 | Int($1) }
            rest = rest.dropFirst(5)
            guard length <= rest.count else { throw .notADocument }
            let content = Array(rest.prefix(length))
            rest = rest.dropFirst(length)
            let last = material.certificates.count - 1
            switch part {
            case .name:
                material.certificates.append(
                    .init(name: String(decoding: content, as: UTF8.self), chain: [], key: []))
            case .chain where last >= 0: material.certificates[last].chain = content
            case .key where last >= 0: material.certificates[last].key = content
            case .ocspResponse where last >= 0: material.certificates[last].ocspResponse = content
            case .chain, .key, .ocspResponse: throw .notADocument
            case .clientAuthorities: material.clientAuthorities = content
            case .ticketKey:
                guard content.count == TLSMaterial.ticketKeyBytes else { throw .notADocument }
                material.ticketKeys.append(content)
            }
        }
        return material
    }
}
