// The control channel: a SOCK_SEQPACKET socket pair, one end in the arbiter, one in a worker. One packet is one message,
// so there is nothing to frame; the end of the arbiter shows in every worker as the end of the channel.

public import Linux
public import SystemPackage

/// The arbiter's end of the channel to one worker.
public typealias ArbiterChannel = ControlChannel<Command, Report>
/// A worker's end.
public typealias WorkerChannel = ControlChannel<Report, Command>

/// One end of a control channel, non-blocking.
///
/// Watch `raw` for readability and call `receive` until it says `wouldBlock`.
public struct ControlChannel<Sent: ControlMessage, Received: ControlMessage>: ~Copyable, Sendable {
    private let descriptor: Descriptor

    /// For epoll.
    public var raw: Int32 { descriptor.raw }

    /// Takes over one end and makes it non-blocking.
    public init(_ descriptor: consuming Descriptor) throws(Errno) {
        try Socket.setNonBlocking(descriptor.raw)
        self.descriptor = descriptor
    }

    /// What sending came to.
    public enum Sending: Equatable, Sendable {
        case sent
        /// The other side has not read for a long time: it hangs, and the message is lost.
        case full
        /// The other side has ended.
        case closed
    }

    /// Sends one message; a report names the command that it answers. The other side gets a copy of `descriptor`, if there
    /// is one.
    @discardableResult
    public func send(_ message: Sent, number: UInt32 = 0, passing descriptor: Int32? = nil) -> Sending {
        let bytes = ControlCodec.encode(Numbered(number: number, message: message))
        do throws(Errno) {
            switch try Socket.sendPacket(self.descriptor.raw, bytes, passing: descriptor) {
            case .moved: return .sent
            case .wouldBlock: return .full
            case .endOfStream: return .closed
            }
        } catch {
            return .closed
        }
    }

    /// What receiving came to.
    public enum Receiving: Equatable, Sendable {
        case message(Numbered<Received>)
        /// To be logged; the channel goes on.
        case notUnderstood(ControlError)
        case wouldBlock
        /// The other side has ended.
        case closed
    }

    /// The next message; a descriptor that came with it is closed.
    public func receive() -> Receiving {
        var passed: Descriptor?
        return receive(&passed)
    }

    /// The next message, and the descriptor that came with it, close-on-exec.
    public func receive(_ passed: inout Descriptor?) -> Receiving {
        do throws(Errno) {
            switch try Socket.receivePacket(descriptor.raw, bytesMax: ControlCodec.bytesMax, &passed) {
            case .bytes(let bytes): return understand(bytes)
            case .tooLong: return .notUnderstood(.tooLong)
            case .wouldBlock: return .wouldBlock
            case .closed: return .closed
            }
        } catch {
            return .closed
        }
    }

    private func understand(_ bytes: [UInt8]) -> Receiving {
        do throws(ControlError) {
            return .message(try ControlCodec.decode(bytes))
        } catch {
            return .notUnderstood(error)
        }
    }
}
