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

    /// Sends one packet, whole or not at all; never raises SIGPIPE. The receiver gets a copy of `descriptor`, if there is one.
    /// The C functions are `send` and `sendmsg`.
    public static func sendPacket(
        _ raw: Int32, _ bytes: [UInt8], passing descriptor: Int32? = nil
    ) throws(Errno) -> Transfer {
        try transfer {
            bytes.withUnsafeBytes {
                guard let descriptor else { return Glibc.send(raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
                return tp_send_descriptor(raw, $0.baseAddress, $0.count, descriptor)
            }
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

    /// Receives one packet, and the descriptor that came with it, close-on-exec; there is one at most. Whatever came is closed
    /// unless it is taken. The C function is `recvmsg`.
    public static func receivePacket(
        _ raw: Int32, bytesMax: Int, _ passed: inout Descriptor?
    ) throws(Errno) -> Packet {
        var buffer = [UInt8](repeating: 0, count: bytesMax + 1)
        var beside = tp_received()
        let received = try transfer {
            buffer.withUnsafeMutableBytes { tp_receive(raw, $0.baseAddress, $0.count, &beside) }
            if beside.count < 0 { errno = beside.error }
            return beside.count
        }
        withUnsafeBytes(of: &beside.descriptors) { bytes in
            let numbers = bytes.bindMemory(to: Int32.self)
            for index in 0..<Int(beside.descriptor_count) {
                let descriptor = Descriptor(owning: numbers[index])
                if index == 0 { passed = consume descriptor }
            }
        }
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
