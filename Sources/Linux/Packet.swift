// Packets between two processes of ours: a SOCK_SEQPACKET socket pair keeps the boundaries of what is written.

import CLinux
import Glibc
public import SystemPackage

extension Socket {
    /// Two connected sockets that keep packets apart, both close-on-exec. The C function is `socketpair`.
    public static func packetPair() throws(Errno) -> DescriptorPair {
        var raw: (Int32, Int32) = (-1, -1)
        let kind = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        _ = try withUnsafeMutableBytes(of: &raw) { (bytes) throws(Errno) in
            try check { socketpair(AF_UNIX, kind, 0, bytes.bindMemory(to: Int32.self).baseAddress) }
        }
        return DescriptorPair(first: Descriptor(owning: raw.0), second: Descriptor(owning: raw.1))
    }

    /// Sends one packet, whole or not at all; never raises SIGPIPE. The C function is `send`.
    public static func sendPacket(_ raw: Int32, _ bytes: [UInt8]) throws(Errno) -> Transfer {
        try transfer {
            bytes.withUnsafeBytes { Glibc.send(raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        }
    }

    /// What receiving a packet came to.
    public enum Packet: Equatable, Sendable {
        case bytes([UInt8])
        /// Longer than asked for; it is gone.
        case tooLong
        case wouldBlock
        /// The other side has ended. An empty packet looks the same.
        case closed
    }

    /// Receives one packet. The C function is `recv`.
    public static func receivePacket(_ raw: Int32, bytesMax: Int) throws(Errno) -> Packet {
        var buffer = [UInt8](repeating: 0, count: bytesMax + 1)
        let received = try transfer { buffer.withUnsafeMutableBytes { recv(raw, $0.baseAddress, $0.count, 0) } }
        switch received {
        case .moved(let count) where count > bytesMax: return .tooLong
        case .moved(let count): return .bytes(Array(buffer.prefix(count)))
        case .wouldBlock: return .wouldBlock
        case .endOfStream: return .closed
        }
    }

    /// Whether what runs in this process after an execve finds the descriptor closed. The C function is `fcntl`.
    public static func setCloseOnExec(_ raw: Int32) throws(Errno) {
        let flags = try check { fcntl(raw, F_GETFD) }
        _ = try check { fcntl(raw, F_SETFD, flags | FD_CLOEXEC) }
    }
}
