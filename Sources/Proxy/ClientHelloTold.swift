// What was read of a ClientHello, as a question tells it.

import RouterProtocol
import TLS

extension ClientHelloFacts {
    /// `data` are the bytes that the reader has read, which begin with 22.
    init(_ reader: ClientHelloReader, _ data: Span<UInt8>) {
        switch reader.state {
        case .needMore: self.init(state: .needMore)
        case .notTLS: self.init(state: .notTLS)
        case .malformed: self.init(state: .malformed)
        case .tooLarge: self.init(state: .tooLarge)
        case .complete:
            self.init(
                state: .complete, serverName: reader.hello?.serverName(in: data),
                hasUnusableServerName: reader.hello?.hasUnusableServerName ?? false,
                protocols: reader.hello?.protocolNames(
                    in: data, countMax: Self.protocolsMax, bytesMax: Self.protocolBytesMax) ?? [])
        }
    }
}
